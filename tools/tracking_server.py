"""The MLflow server of a team, with passwords: python -m tools.tracking_server, as compose.yaml starts it.

Reads from the environment, so that no password stands in a file of the project or in a process list:

DATABASE_URL                   of PostgreSQL: postgresql+psycopg://user:password@host/database
MLFLOW_AUTH_ADMIN_PASSWORD     of the user `admin`, at least 12 characters; used at the first start only
MLFLOW_FLASK_SERVER_SECRET_KEY a secret of the server's own, the same after a restart
HOST, PORT                     default 127.0.0.1 and 5000
ARTIFACTS                      where the runs' files are stored; default ./artifacts
ALLOWED_HOSTS                  names by which clients reach the server, with commas; default localhost alone

MLflow takes the address of its users' database, with the password, from a settings file alone. That file is in memory
(Linux only) and ends with the server, however it ends. Clients see runs and files through the server alone. Every user
may log runs (default_permission = EDIT). Nobody may choose where an experiment's files are: MLflow's server would read
and write any path that it may.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from frugalnet.errors import UserError, in_one_line
from frugalnet.mlflow_store import in_words
from tools.mlflow_server import become_server

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization

NEEDED = ("DATABASE_URL", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
_LOGIN = "tools.tracking_server:login"


def main() -> None:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        raise UserError(f"{', '.join(missing)}: not set; see docs/sharing.md")
    if not (find_spec("psycopg") and find_spec("flask_wtf")):
        raise UserError("the server needs psycopg and mlflow[auth]: make install EXTRAS=team")
    database = os.environ["DATABASE_URL"]
    check_database(database)
    settings = {
        "default_permission": "EDIT",
        "database_uri": database.replace("%", "%%"),
        "admin_username": "admin",
        "authorization_function": _LOGIN,
    }
    config = in_memory("[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    os.environ |= {"MLFLOW_AUTH_CONFIG_PATH": config, "MLFLOW_BACKEND_STORE_URI": database}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    artifacts = str(Path(os.environ.get("ARTIFACTS", "artifacts")).absolute())
    words = ["--app-name", "basic-auth", "--artifacts-destination", artifacts]
    if hosts := os.environ.get("ALLOWED_HOSTS"):
        words += ["--allowed-hosts", hosts]
    become_server(os.environ.get("HOST", "127.0.0.1"), os.environ.get("PORT", "5000"), *words)


def check_database(url: str) -> None:
    """Raises UserError if the database does not answer: MLflow would try for minutes, and print tracebacks."""
    import sqlalchemy

    with in_words("DATABASE_URL: the database does not answer"):
        options = {"connect_timeout": 10} if url.startswith("postgresql") else {}
        sqlalchemy.create_engine(url, connect_args=options).connect().close()


def login() -> "Authorization | Response":
    """Called by MLflow's server for each request: who sends it, or the answer that refuses it.

    Refused is, besides a wrong password, an experiment with an `artifact_location`.
    """
    from flask import make_response, request
    from mlflow.server.auth import authenticate_request_basic_auth

    if "experiments/create" in request.path:
        asked = request.get_json(force=True, silent=True)
        if not isinstance(asked, dict):  # MLflow would decode a JSON string once more, as old clients sent it
            return make_response("expected a JSON object", 400)
        if any(value for key, value in asked.items() if key.replace("_", "").lower() == "artifactlocation"):
            return make_response("artifact_location: this server chooses where files are; leave it out", 400)
    sender: Authorization | Response = authenticate_request_basic_auth()
    return sender


def in_memory(text: str) -> str:
    """The path of a file with this text that exists as long as this process, also as the program that it becomes.

    Only this user's processes can read it. Raises UserError where the system has no such files.
    """
    if sys.platform != "linux":
        raise UserError("the server runs on Linux alone; elsewhere, run it in Docker: docker compose up tracking")
    file = os.memfd_create("frugalnet", 0)  # without flags: the program that this process becomes inherits it
    os.write(file, text.encode())
    return f"/proc/{os.getpid()}/fd/{file}"


if __name__ == "__main__":
    with in_one_line("tracking-server"):
        main()
