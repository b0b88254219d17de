"""The image: what enters it, and the real one, built and run. `make image-test` runs the slow tests, in a quarter of an
hour."""

import os
import secrets
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import servers
from docker.utils.build import exclude_paths
from dvc.utils.hydra import compose_and_dump
from images import WORK, Engine
from torture import clone

ROOT = Path(__file__).parents[1]
ENGINE = os.environ.get("IMAGE_ENGINE", "")
IMAGE = "localhost/frugalnet-test"
SECRET = "planted-secret-" + secrets.token_hex(8)
# Where people keep secrets, or leave clutter that may hold one.
PLACES = (
    *(".env", ".env.local", "sub/.env", "src/.env.production", "conf/.env", "docs/id_rsa", "src/frugalnet/token.txt"),
    *(".dvc/config.local", ".dvc/tmp/secret", ".aws/credentials", ".netrc", "kubeconfig", "key.pem"),
    *(".torture/log", "mlruns-old/mlflow.db", "mlruns/mlflow.db", "data/archive.zip", "weights/.env", "tests/.secret"),
    *("compose.override.yaml", "conf/secrets.yaml", "docs/kubeconfig.yaml", "tests/secret.py", "tools/local.py"),
    *("src/frugalnet/ignored.py", "conf/data/ignored.yaml"),
)
NEW = ("src/frugalnet/models/new.py", "conf/model/new.yaml")  # that somebody tries, not yet in a commit


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a secret wherever one may lie, in git's own memory, too."""
    folder = clone(tmp_path_factory.mktemp("image") / "project")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "remote", "add", "origin", f"https://user:{SECRET}@example.org/x.git"], check=True)
    (folder / "README.md").write_text(SECRET)
    subprocess.run([*git, "commit", "-qam", "A mistake"], check=True)
    subprocess.run([*git, "reset", "-q", "--hard", "HEAD~1"], check=True)  # the reflog still knows it
    for place in PLACES:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(SECRET)
    for place in NEW:
        (folder / place).write_text("")
    with (folder / ".gitignore").open("a") as file:
        file.write("ignored.*\n")
    return folder


def test_all_that_git_tracks_reaches_the_builder(project):
    reached = context(project)
    tracked = subprocess.run(["git", "ls-files"], cwd=project, capture_output=True, text=True, check=True).stdout
    missing = set(tracked.splitlines()) - reached
    assert not missing, "name them in .dockerignore"


def test_no_secret_from_outside_the_projects_folders_reaches_the_builder(project):
    own = {place for place in PLACES if place.startswith(("conf/", "docs/", "src/", "tests/", "tools/"))}
    assert context(project) & set(PLACES) == own - {place for place in own if "/.env" in place}


def test_of_what_reaches_the_builder_the_image_holds_new_code_and_no_secret(project, tmp_path):
    source = tmp_path / "source"
    for name in filter(lambda name: (project / name).is_file(), context(project)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / name, source / name)
    shutil.copytree(project / ".git", source / ".git", dirs_exist_ok=True)
    stage = (ROOT / "Dockerfile").read_text().partition("AS source\n")[2].partition("\n\n")[0]
    commands = stage.partition("\nRUN ")[2].replace("\\\n", " ").replace("/clone", f"{tmp_path}/clone")
    subprocess.run(["sh", "-c", commands], cwd=source, check=True)
    found = {path for path in source.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()}
    assert not found
    assert all((source / name).is_file() for name in NEW)
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=source, capture_output=True, check=True
    )
    assert SECRET.encode() not in objects.stdout


def context(project: Path) -> set[str]:
    lines = (project / ".dockerignore").read_text().splitlines()
    return set(exclude_paths(str(project), [line for line in lines if line and not line.startswith("#")]))


needs_an_engine = pytest.mark.skipif(not ENGINE, reason="IMAGE_ENGINE is not set: make image-test")


@pytest.fixture(scope="module")
def engine(project: Path) -> Engine:
    """The engine, with the image built."""
    engine = Engine(ENGINE, project.parent)
    engine.build(project, IMAGE)
    return engine


@pytest.fixture
def volumes(engine: Engine, tmp_path: Path) -> Iterator[list[str]]:
    """Options that mount parameters of a small and long study, and volumes for what a container leaves to the next."""
    small = ["data=sample", "train=demo", "model=depthwise", "compute.threads=1", "train.epochs=400"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", small)
    (tmp_path / "params.yaml").chmod(0o644)
    names = {f"frugalnet-test-{name}": name for name in (".dvc/cache", ".checkpoints", "mlruns")}
    names = {name.replace("/", "-").replace(".", ""): folder for name, folder in names.items()}
    mounted = [word for name, folder in names.items() for word in ("--volume", f"{name}:{WORK}/{folder}")]
    yield [*mounted, "--volume", f"{tmp_path}/params.yaml:{WORK}/params.yaml"]
    engine.call("volume", "rm", "--force", *names)


def wait_for(engine: Engine, container: str, *texts: str) -> str:
    """Wait until the container has printed one of the texts; all that it printed."""
    deadline = time.monotonic() + 300
    while not any(text in (log := engine.log(container)) for text in texts):
        state = engine.call("inspect", "--format", "{{.State.Running}}", container)
        assert "true" in state, log
        assert time.monotonic() < deadline, log
        time.sleep(0.5)
    return log


def run(engine: Engine, *words: str) -> str:
    return engine.call("run", "--rm", IMAGE, *words)


@needs_an_engine
@pytest.mark.slow
def test_a_picture_is_classified(engine):
    assert "depthwise_x3-0" in run(engine, "frugalnet", "predict", "docs/report.png")


@needs_an_engine
@pytest.mark.slow
def test_no_secret_is_in_the_image(engine):
    search = f"grep -rlF {SECRET} / --exclude-dir=proc --exclude-dir=sys 2>/dev/null; true"
    assert run(engine, "sh", "-c", search) == ""
    objects = "git cat-file --batch-all-objects --batch"
    assert SECRET not in run(engine, "sh", "-c", f"{objects} | grep -aF planted-secret; git config --list; git log -p")
    assert run(engine, "git", "status", "--porcelain").split() == ["M", ".gitignore", "??", NEW[1], "??", NEW[0]]
    assert len(run(engine, "git", "log", "--format=%H").split()) == 1


@needs_an_engine
@pytest.mark.slow
def test_what_only_developers_need_is_not_in_the_image(engine):
    there = run(engine, "sh", "-c", "ls .venv/bin .venv/lib/python3*/site-packages /var/cache/apt /var/lib/apt/lists")
    assert not {"mypy", "playwright", "pytest", "ruff", "pkgcache.bin"} & set(there.split())


@needs_an_engine
@pytest.mark.slow
def test_mlflows_pages_are_served_where_nothing_was_logged_and_end_at_once(engine):
    port = servers.free_port()
    with engine.running(IMAGE, ["make", "ui"], ["--env", f"PORT={port}"]) as container:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
                break
            time.sleep(0.5)
        else:
            raise AssertionError(engine.log(container))
        started = time.monotonic()
        engine.call("stop", "--time", "60", container)
        assert time.monotonic() - started < 45
        assert engine.exit_code(container) != 137, "killed"


@needs_an_engine
@pytest.mark.slow
@pytest.mark.parametrize("ended_by", ["stop", "kill"])
def test_a_second_container_resumes_where_the_first_was_ended(engine, volumes, ended_by):
    with engine.running(IMAGE, ["dvc", "repro", "train"], volumes) as first:
        wait_for(engine, first, "epoch 3/400")
        if ended_by == "stop":
            engine.call("stop", "--time", "60", first)
            log = engine.log(first)
            assert "a checkpoint is written; rerun to resume" in log
            assert "Traceback" not in log
            assert engine.exit_code(first) != 137, "killed"
        else:
            engine.call("kill", "--signal", "KILL", first)
    with engine.running(IMAGE, ["dvc", "repro", "train"], volumes) as second:
        log = wait_for(engine, second, "epoch 5/400")
        assert "epoch 1/400" not in log
