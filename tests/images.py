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
ENGINES = {
    "docker": ["docker"],
    "podman": ["podman", "--cgroup-manager", "cgroupfs", "--runtime", "runc"],
}


class Engine:
    """Docker or podman; the same words for both."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.command = ENGINES[name]

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
        self._make_base(project.parent / "base")
        settings = project.parent / "pip.conf"
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
        limits = ["--ulimit", "host"] if self.name == "podman" else []
        identity = self.call("run", "--detach", *limits, "--network", "host", *options, image, *words).split()[-1]
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
