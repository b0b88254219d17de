"""What works without the extra `study`: in this environment with torch and the like hidden, and in a fresh one."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
import servers
from PIL import Image

from frugalnet import pictures
from frugalnet.files import sha256
from frugalnet.use import weights
from frugalnet.use.pytorch import open_network
from frugalnet.use.runtime import open_exported, open_stored

ROOT = Path(__file__).parents[1]
MOST_MEBIBYTES = 260  # of the base's environment, pip included
HIDDEN = (
    *("albumentations", "cv2", "dvc", "jinja2", "matplotlib", "mlflow", "onnx", "onnxscript", "pandas", "plotly"),
    *("requests", "scipy", "sklearn", "torch", "torchvision", "tqdm"),
)
HOOK = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Hidden())
"""


def _run(command: list[str], words: tuple[object, ...], folder: Path, code: int) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def _hidden(folder: Path) -> tuple[list[str], list[str]]:
    """How this environment is called as `python -c` and as `frugalnet`, with HIDDEN not to be found."""
    (folder / "hidden").mkdir()
    (folder / "hidden/hidden_modules.py").write_text(HOOK)  # not sitecustomize: Debian's Python has one
    path = f"import sys; sys.path[:0] = [{str(folder / 'hidden')!r}, {str(ROOT / 'src')!r}]; import hidden_modules; "
    (folder / "python.py").write_text(f"{path}exec(sys.argv[1])\n")
    command = f"{path}from frugalnet.use import cli; sys.argv[0] = 'frugalnet'; cli.main()"
    return [sys.executable, str(folder / "python.py")], [sys.executable, "-c", command]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A new environment, in which the base's lock and this project are installed."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for name in ("src", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements-base.lock"], check=True)
    subprocess.run([*pip, "--no-deps", source], check=True)
    return environment


@pytest.fixture(
    scope="module", params=["hidden", pytest.param("fresh", marks=pytest.mark.slow)], ids=["hidden", "fresh"]
)
def commands(request, tmp_path_factory) -> tuple[list[str], list[str]]:
    """How `python -c` and `frugalnet` are called."""
    if request.param == "hidden":
        return _hidden(tmp_path_factory.mktemp("hidden"))
    binaries = request.getfixturevalue("environment") / "bin"
    return [str(binaries / "python"), "-c"], [str(binaries / "frugalnet")]


@pytest.fixture
def mine(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for name, low in (("bright", 128), ("dark", 0)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for k in range(10):
            pixels = generator.integers(low, low + 128, (70, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{k}.png")
    return tmp_path / "mine"


def test_the_base_predicts_adapts_and_exports(commands, mine, tmp_path):
    python, frugalnet = commands

    def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return _run(frugalnet, words, tmp_path, code)

    assert "No module named 'torch'" in _run(python, ("import torch",), tmp_path, 1).stderr
    said = run("predict", "mine/dark/0.png", "--model", "depthwise", "--top", "2").stdout
    assert "centre-cropped and scaled from 80×70 to 64×64): depthwise-0, " in said
    code = "import frugalnet; print(frugalnet.load('frugal').predict(['mine/dark/0.png'])[0].top(1))"
    assert _run(python, (code,), tmp_path, 0).stdout.startswith("[('")

    listed = run("networks", "--max-bytes", "120k").stdout
    assert "frugal-0  " in listed
    assert "frugal_wide" not in listed

    adapted = run("adapt", "mine", "--model", "frugal", "--out", "net")
    assert "Starting from frugal-0, as asked: " in adapted.stdout
    assert "4 of 4 held-out pictures classified correctly: 100.0%" in adapted.stdout
    assert "Warning: fewer than 20 pictures" in adapted.stdout
    said = run("predict", "mine/dark/0.png", "--weights", "net", "--top", "1").stdout
    assert said.splitlines()[-1].endswith("dark")
    port = servers.free_port()
    with servers.started(
        [*frugalnet, "serve", "--weights", "net", "--port", str(port)], port, tmp_path / "log", "/health", cwd=tmp_path
    ):
        picture = (tmp_path / "mine/dark/0.png").read_bytes()
        answer = requests.post(
            f"http://127.0.0.1:{port}/predict", picture, headers={"Content-Type": "image/png"}, timeout=60
        )
    assert answer.json()["pictures"][0]["predictions"][0]["top"][0]["name"] == "dark"
    listed = run("networks", "--weights", "net", "--max-bytes", "120k").stdout
    assert "frugal-0  int8  100.0% (51.0 to 100.0 %)" in listed
    assert "onnx" not in listed
    assert "model.int8.onnx: " in run("export", "out", "--weights", "net", "--copy").stdout
    for words in (["mine/dark/0.png"], ["mine/dark/0.png", "model.int8.onnx"]):
        code = f"import sys, runpy; sys.argv = {['run.py', *words]}; runpy.run_path('out/run.py', run_name='__main__')"
        assert _run(python, (code,), tmp_path, 0).stdout.splitlines()[0].endswith("dark")

    for words in (
        ("adapt", "mine", "--train", "norms", "--out", "other"),
        ("export", "other", "--pictures", "mine"),
        ("predict", "mine/dark/0.png", "--run", 32 * "0"),
    ):
        refused = run(*words, code=1)
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert refused.stderr.endswith("pip install '.[study]'\n")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_base_takes_little_space(environment):
    done = subprocess.run(["du", "-sm", environment], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) <= MOST_MEBIBYTES


def test_a_prediction_imports_no_package_of_the_study_and_no_server(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    code = (
        "import sys; from frugalnet.use import cli; sys.argv = ['frugalnet', 'predict', 'a.png']\n"
        "try: cli.main()\n"
        f"finally: print([name for name in (*{HIDDEN}, 'fastapi', 'google') if name in sys.modules])"
    )
    done = _run([sys.executable, "-c", code], (), tmp_path, 0)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def pixels(sample_archive) -> np.ndarray:
    """1,000 pictures of the sample: (1000, 64, 64, 3) uint8."""
    with zipfile.ZipFile(sample_archive) as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG")]
        read = [pictures.read_picture(archive.read(name), name).pixels for name in names[:1000]]
    return np.resize(np.stack(read), (1000, 64, 64, 3))


@pytest.mark.parametrize("stored", weights.of_folder(weights.project_folder()), ids=lambda stored: stored.name)
def test_the_committed_onnx_files_are_exports_of_the_committed_weights(stored, pixels):
    some = pixels if stored.entry.model == "depthwise" else pixels[::20]
    network = open_stored(stored)
    assert network.path.name == f"{stored.name}.onnx"
    assert np.abs(network.logits(some) - open_network(stored)(some)).max() < 1e-4
    assert stored.entry.onnx is not None
    assert stored.entry.int8 is not None
    for export in (stored.entry.onnx, stored.entry.int8):
        path = stored.path.with_name(export.file)
        described = open_exported(path)
        assert (described.name, described.classes, described.side) == (stored.name, stored.classes, 64)
        assert _metadata(path)["source_sha256"] == stored.entry.sha256 == sha256(stored.path)
    agree = described.logits(some).argmax(axis=1) == network.logits(some).argmax(axis=1)
    assert agree.mean() > 0.7  # int8 rounds, and the sample's pictures are unlike those of Tiny ImageNet


def _metadata(path: Path) -> dict[str, str]:
    import onnxruntime

    found: dict[str, str] = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    return found
