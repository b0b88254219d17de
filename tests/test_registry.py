"""The registry, its aliases, and MLflow's own server for the champion: real HTTP requests to a real process."""

import base64
import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
import servers
import trained

import frugalnet
from frugalnet import mlflow_store, pictures, registry, tracking
from frugalnet.aliases import Version, choose_versions
from frugalnet.comparison.compare import Evidence
from frugalnet.data import arrays
from frugalnet.errors import UserError
from frugalnet.export.config import ExportConfig
from frugalnet.files import read_json
from frugalnet.run import read_run
from frugalnet.study.findings import conclude
from frugalnet.use import cli, registered, weights
from frugalnet.use.exported import write_stored

NAMES = ("depthwise-0", "alexnet-0")


# Which network an alias names


def version(model: str, seed: int, top1: float, macs: int, **others: Any) -> Version:
    known = {"name": f"frugalnet-{model}", "number": 1, "created": 1, "trained_sha256": "t", "data": "real"}
    known |= {"data_sha256": "r", "validated_on": "validation split"}
    given = {"model": model, "seed": seed, "top1": top1, "macs": macs, "is_sample": False}
    return Version(**(known | given | others))


def test_the_champion_has_the_highest_mean_over_seeds_and_the_alias_goes_to_the_lowest_seed():
    versions = [version("a", 0, 0.39, 9), version("b", 1, 0.46, 5), version("b", 0, 0.44, 5), version("c", 3, 0.44, 1)]
    chosen = choose_versions(versions)
    assert chosen["champion"].version == versions[2]
    assert chosen["frugal"].version == versions[3]
    assert chosen["champion"].why == "mean top-1 45.00% over 2 seeds, 0.00 M MACs; the highest top-1 of 3 on real"
    assert "the fewest MACs of 2 within 5 points of 45.00%" in chosen["frugal"].why


def test_frugal_is_the_champion_where_none_saves_a_tenth():
    chosen = choose_versions([version("a", 0, 0.50, 100), version("b", 0, 0.49, 95)])
    assert chosen["frugal"].version == chosen["champion"].version
    assert chosen["frugal"].why.endswith("; none has 10% fewer MACs on real")


def test_macro_accuracy_ranks_where_classes_differ_in_size():
    common = version("a", 0, 0.90, 9, macro_accuracy=0.50)
    even = version("b", 0, 0.80, 9, macro_accuracy=0.60)
    champion = choose_versions([common, even])["champion"]
    assert champion.version == even
    assert champion.why.startswith("mean macro accuracy 60.00% over 1 seed, ")


def test_frugal_has_the_fewest_macs_within_five_points():
    best, near, far = version("a", 0, 0.50, 9), version("b", 0, 0.45, 5), version("c", 0, 0.449, 1)
    assert choose_versions([best, near, far])["frugal"].version == near


@pytest.mark.parametrize(
    ("cheap", "why"),
    [
        (0.43, "the highest top-1 with fewer MACs, none of them within 5 points of 55.00% on real"),
        (0.51, "the fewest MACs of 2 within 5 points of 55.00% on real"),
    ],
)
def test_the_alias_frugal_names_the_network_that_the_report_recommends(full, cheap, why):
    full = full.comparison
    best, second = full.rows[:2]
    compared = dataclasses.replace(
        full,
        rows=[
            dataclasses.replace(best, macs=20_000_000, top1=dataclasses.replace(best.top1, mean=0.55)),
            dataclasses.replace(second, macs=3_000_000, top1=dataclasses.replace(second.top1, mean=cheap)),
        ],
    )
    sentences = conclude(Evidence(compared)).recommendation
    chosen = choose_versions([version(row.model, 0, row.top1.mean, row.macs) for row in compared.rows])
    assert sentences[0].startswith(f"If computation matters, use {second.model}:")
    assert chosen["frugal"].version.model == second.model
    assert chosen["frugal"].why.endswith(why)


def test_a_newer_version_of_a_seed_replaces_the_older_and_other_recipes_are_not_averaged():
    old, new = version("a", 0, 0.5, 9), version("a", 0, 0.3, 9, number=2, created=2)
    other = version("b", 0, 0.4, 9)
    assert choose_versions([old, new, other])["champion"].version == other
    longer = version("b", 1, 0.1, 9, trained_sha256="longer")
    assert choose_versions([new, other, longer])["champion"].version == other


def test_networks_on_other_images_are_not_compared_and_sample_data_only_where_there_are_no_others():
    sample = version("a", 0, 0.9, 1, is_sample=True, data_sha256="s", data="sample", created=9)
    real, newer = version("b", 0, 0.4, 9), version("c", 0, 0.3, 9, data_sha256="r2", created=2)
    assert choose_versions([sample, real])["champion"].version == real
    assert choose_versions([sample, real, newer])["champion"].version == newer
    assert choose_versions([sample])["frugal"].version == sample
    with pytest.raises(UserError, match="the registry holds no network"):
        choose_versions([])


# The registry


@pytest.fixture(scope="module")
def project(tmp_path_factory, sample_archive) -> Path:
    """Two networks in a registry of their own; the int8 file of the second was not accepted."""
    folder = trained.project(tmp_path_factory.mktemp("trained"), sample_archive, NAMES)
    for name in NAMES:
        register(folder, name)
    return folder


def register(folder: Path, name: str, **changes: Any) -> None:
    run = read_run(folder / "results/train" / name / "run.json").changed(**changes)
    stored, data = weights.of_run(folder, name), arrays.read_dataset(folder / "data/arrays")
    out = folder / "results/export" / name
    if not out.exists():
        out.mkdir(parents=True)
        if name == NAMES[0]:  # the one that is served
            config = ExportConfig(calibration_images=10, max_loss_points=1.0)
            write_stored(stored, np.array(data.train.images[:10]), config, out)
        else:
            for file in ("model.onnx", "model.int8.onnx"):
                (out / file).write_bytes(file.encode())
    with tracking.training_run(folder, run, {}) as tracked:
        registered.register(tracked, stored, run, data, out, ["onnx", "int8"] if name == NAMES[0] else ["onnx"])


def test_a_version_leads_to_its_run_its_figures_its_data_and_its_files(project, tmp_path):
    client, _ = mlflow_store.connect(project)
    found = client.get_model_version("frugalnet-depthwise", "1")
    run = read_json(project / "results/train/depthwise-0/run.json")
    metrics = read_json(project / "results/evaluate/depthwise-0/metrics.json")
    for key in ("weights_sha256", "data_sha256", "fingerprint", "seed"):
        assert found.tags[key] == str(run[key])
    assert (float(found.tags["top1"]), int(found.tags["macs"])) == (metrics["top1"], metrics["macs"])
    assert found.description == (
        f"depthwise-0: top-1 {metrics['top1']:.2%} on the validation split of sample, {metrics['macs'] / 1e6:.2f} M "
        "MACs an image. Beside the weights: model.int8.onnx, model.onnx."
    )
    of_run = client.get_run(found.run_id)
    assert of_run.data.tags["fingerprint"] == run["fingerprint"]
    (given,) = of_run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("sample", run["data_sha256"][:12])
    logged_models = client.search_logged_models([of_run.info.experiment_id])
    (logged,) = [one for one in logged_models if one.source_run_id == found.run_id]
    assert logged.name == "depthwise-0"
    assert {metric.key: metric.value for metric in logged.metrics} == {"final/top1": metrics["top1"]}

    for name, files in zip(NAMES, ({"model.onnx", "model.int8.onnx"}, {"model.onnx"}), strict=True):
        (one,) = client.search_model_versions(f"name = 'frugalnet-{name[:-2]}'")
        folder = registry.download(project, one.run_id, tmp_path / name)
        assert {path.name for path in folder.iterdir()} == {
            f"{name}.safetensors",
            "weights.json",
            "sample.json",
        } | files
        assert not [path for path in (tmp_path / name).rglob("*") if path.suffix in (".pkl", ".pt", ".py")]


def test_a_network_is_registered_once(project):
    register(project, NAMES[0])
    client, _ = mlflow_store.connect(project)
    assert len(client.search_model_versions("name = 'frugalnet-depthwise'")) == 1


def test_the_command_moves_the_aliases_and_says_why(project, monkeypatch, capsys):
    with pytest.raises(
        UserError, match=r"no network has the alias champion in sqlite:///.*run `dvc repro`, then `python -m"
    ):
        registry.find_version(project, "champion")
    client, _ = mlflow_store.connect(project)
    client.set_registered_model_alias("frugalnet-alexnet", "frugal", "1")
    environment = {**os.environ, "DVC_ROOT": str(project), "PYTHONPATH": str(trained.ROOT / "src")}
    command = [sys.executable, "-m", "frugalnet.promote"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    champion, frugal = done.stdout.splitlines()
    best = max(NAMES, key=lambda name: weights.of_run(project, name).entry.top1)[:-2]
    assert champion.startswith(f"champion: frugalnet-{best} version 1 (was none): mean top-1 ")
    assert frugal.startswith("frugal: frugalnet-depthwise version 1 (was frugalnet-alexnet version 1): mean top-1 ")
    assert registry.find_version(project, "champion") == (f"frugalnet-{best}", "1")
    assert registry.find_version(project, "frugal") == ("frugalnet-depthwise", "1")
    assert "frugal" not in client.get_registered_model("frugalnet-alexnet").aliases
    assert registry.promote(project)[1].startswith("frugal: frugalnet-depthwise version 1 (as before): ")


def test_other_data_have_models_and_aliases_of_their_own_and_take_none_from_these(project):
    before = {alias: registry.find_version(project, alias) for alias in ("champion", "frugal")}
    register(project, "depthwise-0", data="parts", is_sample=False, fingerprint="of the parts")
    client, _ = mlflow_store.connect(project)
    (of_parts,) = client.search_model_versions("name = 'frugalnet-parts-depthwise'")
    lines = registry.promote(project)
    assert [line.split(":")[0] for line in lines] == ["champion", "frugal", "champion of parts", "frugal of parts"]
    for alias, version in before.items():
        assert registry.find_version(project, alias, "sample") == version
        assert registry.find_version(project, alias, "parts") == ("frugalnet-parts-depthwise", str(of_parts.version))
        with pytest.raises(UserError, match=f"networks on parts, sample have the alias {alias}: name one with --data"):
            registry.find_version(project, alias)
    with pytest.raises(UserError, match=r"no network has the alias champion on other in sqlite:///.*: run"):
        registry.find_version(project, "champion", "other")
    client.delete_registered_model("frugalnet-parts-depthwise")  # for the tests below


def test_predict_takes_the_network_of_a_run(project, tmp_path, monkeypatch, capsys):
    client, _ = mlflow_store.connect(project)
    (found,) = client.search_model_versions("name = 'frugalnet-depthwise'")
    monkeypatch.setenv("DVC_ROOT", str(project))
    pixels = np.array(arrays.read_dataset(project / "data/arrays").validation.images[0])
    (tmp_path / "a.png").write_bytes(pictures.encode_png(pixels))

    def predict(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["frugalnet", "predict", str(tmp_path / "a.png"), "--json", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    assert predict("--run", found.run_id) == 0
    assert json.loads(capsys.readouterr().out)[0]["network"] == "depthwise-0"
    assert predict("--run", "0123") == "frugalnet: MLflow: run '0123': Run with id=0123 not found"
    empty = client.create_run(client.get_run(found.run_id).info.experiment_id).info.run_id
    assert "has no exported network; run `dvc repro`" in predict("--run", empty)
    assert "give one of them" in predict("--run", "0123", "--weights", "weights")


# The servers


def environment(project: Path, **others: str) -> dict[str, str]:
    return {**os.environ, "DVC_ROOT": str(project), "PYTHONPATH": str(trained.ROOT / "src"), **others}


@pytest.fixture(scope="module")
def frugal(project) -> str:
    """The registered network that has the alias `frugal`, as MLflow names it."""
    client, _ = mlflow_store.connect(project)
    client.set_registered_model_alias("frugalnet-depthwise", "frugal", "1")
    return "models:/frugalnet-depthwise@frugal"


@pytest.fixture(scope="module")
def server(project, frugal, tmp_path_factory) -> Iterator[str]:
    """The address of MLflow's own server for the registered network."""
    port = servers.free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where MLflow finds uvicorn
    options = environment(project, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(), PATH=path)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", frugal, "--env-manager", "local"]
    log = tmp_path_factory.mktemp("server") / "log"
    with servers.started([*command, "--port", str(port)], port, log, "/ping", env=options):
        yield f"http://127.0.0.1:{port}/invocations"


def test_serve_fetches_the_network_of_an_alias_and_leaves_no_folder(project, frugal, tmp_path):
    port, temporary = servers.free_port(), tmp_path / "temporary"
    temporary.mkdir()
    picture = pictures.encode_png(np.array(arrays.read_dataset(project / "data/arrays").validation.images[3]))
    command = [sys.executable, "-m", "frugalnet.use.cli", "serve", "--alias", "frugal", "--data", "sample"]
    options = environment(project, TMPDIR=str(temporary))
    with servers.started([*command, "--port", str(port)], port, tmp_path / "log", "/health", env=options):
        (answer,) = requests.post(f"http://127.0.0.1:{port}/predict", data=picture, timeout=60).json()["pictures"]
        assert list(temporary.iterdir()) == []  # while it serves
    (opinion,) = answer["predictions"]
    (expected,) = stored_network(project).predict([pictures.read_picture(picture, "x").pixels])
    assert opinion["network"] == "depthwise-0"
    assert [one["id"] for one in opinion["top"]] == [one["id"] for one in expected.named(5)]


def test_an_alias_where_nothing_was_logged_is_one_line_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "frugalnet.use.cli", "serve", "--alias", "champion"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"frugalnet: {tmp_path}/mlruns/mlflow.db: no such file; nothing was logged here. ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def answer(server: str, body: object) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, str) else json.dumps(body)
    found = requests.post(server, data=data, headers={"Content-Type": "application/json"}, timeout=60)
    return found.status_code, found.json()


def records(*rows: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {"dataframe_records": list(rows), "params": params}


def image(data: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


def test_the_server_names_what_is_in_a_jpeg_and_in_64_pictures(project, server, sample_archive):
    with zipfile.ZipFile(sample_archive) as archive:
        jpeg = archive.read("tiny-imagenet-200/val/images/val_0.JPEG")
    network = stored_network(project)
    (expected,) = network.predict([pictures.read_picture(jpeg, "x").pixels])
    status, found = answer(server, records(image(jpeg), top=3))
    assert status == 200
    (one,) = found["predictions"]
    assert one["changes"] == []
    assert [each["id"] for each in one["classes"]] == [each["id"] for each in expected.named(3)]
    assert [each["name"] for each in one["classes"]] == [name for name, _ in expected.top(3)]
    assert np.allclose([each["probability"] for each in one["classes"]], [p for _, p in expected.top(3)], atol=1e-5)

    images = np.array(arrays.read_dataset(project / "data/arrays").validation.images[::3][:64])
    best = [prediction.named(1)[0]["id"] for prediction in network.predict(images)]
    for rows in ([image(pictures.encode_png(one)) for one in images], [{"pixels": one.tolist()} for one in images]):
        status, found = answer(server, records(*rows, top=1))
        assert status == 200
        assert [one["classes"][0]["id"] for one in found["predictions"]] == best


def stored_network(project: Path):
    return frugalnet.load(weights=project / "models/depthwise-0.safetensors")


PIXELS = np.full((64, 64, 3), 200).tolist()
PNG = pictures.encode_png(np.zeros((64, 64, 3), np.uint8))
WRONG = {
    "a truncated picture": (records(image(PNG[:60])), "picture 0: "),
    "text": (records({"image": base64.b64encode(b"text").decode()}), "picture 0: not a picture; expected one of: BMP"),
    "the second is bad": (
        records(image(pictures.encode_png(np.zeros((9, 9, 3), np.uint8))), {"image": ""}),
        "picture 1: ",
    ),
    "an empty body": ("", "valid JSON"),
    "half of a body": ("{", "valid JSON"),
    "an empty object": ({}, "exactly one of the input fields"),
    "no pictures": (records(), "no picture: expected dataframe_records, each with image or pixels"),
    "another column": (records({"picture": "x"}), "no picture: expected dataframe_records"),
    "a number": (records({"image": 5}), "not compatible with model signature"),
    "floats": (records({"pixels": (np.array(PIXELS) / 255).tolist()}), "multiply pixels in 0..1 by 255"),
    "too large": (records({"pixels": (np.array(PIXELS) + 56).tolist()}), "found 256..256"),
    "negative": (records({"pixels": (np.array(PIXELS) - 201).tolist()}), "found -1..-1"),
    "another shape": (records({"pixels": PIXELS[:63]}), "found the shape 63×64×3"),
    "ragged": (records({"pixels": [1, [2]]}), "lists of different lengths"),
    "both": (records({"pixels": PIXELS, "image": ""}), "expected either image or pixels"),
    "top": (records({"pixels": PIXELS}, top=0), "top: expected at least 1, found 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_bad_request_gets_a_clear_answer_and_the_server_lives(server, what):
    body, message = WRONG[what]
    status, found = answer(server, body)
    assert status == 400
    assert message in found["message"]
    assert "Traceback" not in json.dumps(found)
    assert answer(server, records({"pixels": PIXELS}))[0] == 200
