"""The project's image, built and run for tests: by Docker, or as root by Debian's buildah, podman and debootstrap."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BASE = "docker.io/library/python:3.11-slim-bookworm"
WORK = "/home/frugal/frugalnet"
# runc, but a container keeps this machine's limits: without CAP_SYS_RESOURCE, podman's own cannot be set.
RUNTIME = """#!/usr/bin/python3
import json, os, sys
if "--bundle" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    config = json.load(open(path))
    config["process"].pop("rlimits", None)
    json.dump(config, open(path, "w"))
os.execvp("runc", ["runc", *sys.argv[1:]])
"""


class Engine:
    """Docker or podman; the same words for both. folder: for files that it needs."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.command = [name]
        if name == "podman":
            runtime = folder / "runtime"
            runtime.write_text(RUNTIME)
            runtime.chmod(0o755)
            self.command += ["--cgroup-manager", "cgroupfs", "--runtime", str(runtime)]

    def call(self, *words: str, code: int = 0) -> str:
        """Run a command of the engine; all that it printed."""
        done = subprocess.run([*self.command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{shlex.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def build(self, project: Path, tag: str) -> None:
        """Build the project's image; what the builder prints goes to this process's output."""
        if self.name == "docker":
            subprocess.run(["docker", "build", "--tag", tag, project], check=True)
            return
        self._make_base(self.folder / "base")
        settings = self.folder / "pip.conf"
        mounts = _write_pip_settings(settings)
        command = ["buildah", "bud", "--layers", "--isolation", "chroot", "--pull-never", "--network", "host"]
        for source, target in mounts.items():
            command += ["--volume", f"{source}:{target}:ro"]
        subprocess.run([*command, "--tag", tag, project], check=True)

    def _make_base(self, folder: Path) -> None:
        """Debian with its own Python under the name of the Dockerfile's base, unless there is an image of that name."""
        exists = subprocess.run([*self.command, "image", "exists", BASE], check=False).returncode == 0
        if exists:
            return
        packages = "--include=ca-certificates,libpython3-dev,python3-venv"
        subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", folder], check=True)
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run([*self.command, "import", "-", BASE], stdin=tar.stdout, check=True)
        shutil.rmtree(folder)

    @contextmanager
    def running(self, image: str, words: Sequence[str], options: Sequence[str] = ()) -> Iterator[str]:
        """A container that runs these words, by its id; it is removed at the end."""
        identity = self.call("run", "--detach", "--network", "host", *options, image, *words).split()[-1]
        try:
            yield identity
        finally:
            self.call("rm", "--force", identity)

    def log(self, container: str) -> str:
        return self.call("logs", container)

    def exit_code(self, container: str) -> int:
        return int(self.call("inspect", "--format", "{{.State.ExitCode}}", container))


def _write_pip_settings(path: Path) -> dict[str, str]:
    """Write this machine's settings of pip to a file; what has to be mounted for them: files here → there."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    mounts = {str(path): "/etc/pip.conf"}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'\"")
    for value in settings.values():
        for word in value.split():
            # The files of an index in a folder lie beside it.
            here = Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
            if here.is_absolute() and here.exists():
                mounts[str(here)] = str(here)
    path.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return mounts
