"""Serve MLflow's UI and print the page to open: python -m tools.ui (make ui; with OPEN=1 it opens the page, too).

LISTEN and PORT choose the address, by default 127.0.0.1 and 5000. (HOST is what some shells call this machine.) If
MLFLOW_TRACKING_URI names a server, nothing is started: the page is on that server.
"""

import os
import re
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path

from frugalnet import mlflow_store, runs_page
from frugalnet.errors import in_one_line, without_secrets
from tools.mlflow_server import become_server, check_address


def main() -> None:
    host = os.environ.get("LISTEN") or "127.0.0.1"
    port = os.environ.get("PORT") or "5000"
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    is_remote = server.startswith("http")
    if is_remote:
        address = without_password(server)
    else:
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        check_address(host, port)
    _, experiment_id = mlflow_store.connect(Path())
    page = f"{address}/{runs_page.page(experiment_id)}"
    print(f"Training runs: {page}", flush=True)
    if os.environ.get("OPEN"):
        if is_remote:
            webbrowser.open(page)
        else:
            subprocess.Popen([sys.executable, "-m", "tools.ui", f"{address}/health", page, str(os.getpid())])
    if not is_remote:
        # Not an argument, which all users of the machine can read: it may hold a password.
        os.environ["MLFLOW_BACKEND_STORE_URI"] = mlflow_store.address(Path())
        become_server(host, port)


def without_password(server: str) -> str:
    """The address of a server, as it may be printed."""
    return re.split("[?#;]", without_secrets(server).replace("***@", ""))[0].rstrip("/")


def open_page(health: str, page: str, server: str) -> None:
    """Open the page in a browser as soon as the server answers. server: its process, this one's parent."""
    while os.getppid() == int(server):
        try:
            with urllib.request.urlopen(health, timeout=5):
                webbrowser.open(page)
                return
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    with in_one_line("ui"):
        open_page(*sys.argv[1:]) if sys.argv[1:] else main()
