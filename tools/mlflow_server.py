"""Becoming MLflow's own server, for `make ui` and for a team."""

import os
import socket
import sys
from typing import NoReturn

from frugalnet.errors import UserError


def become_server(host: str, port: str, *words: str) -> NoReturn:
    """Replace this process by `mlflow server` with these further words.

    One worker, unless MLFLOW_WORKERS says otherwise: uvicorn ends each of several workers that does not answer within
    five seconds, which importing MLflow takes on a busy machine. No job execution: it takes seven processes and 2 GB,
    and nothing here uses it. Raises UserError if the address is in use or not this machine's.
    """
    check_address(host, port)
    os.environ.setdefault("MLFLOW_WORKERS", "1")
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", port, *words])


def check_address(host: str, port: str) -> None:
    """Raises UserError if a server cannot listen on this address."""
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"PORT: expected a number from 1 to 65535, found {port!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, int(port)), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else error.strerror
        raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another port with PORT=…") from error
