"""Limits instead of a network's name, in the command's own words, on the project's networks."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalnet.recommendation import Budget
from frugalnet.use import choice, cli, commands, runtime, weights

SMALL = 120_000  # bytes, which some files of the project exceed


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of two networks whose files nobody has timed."""
    few = [stored for stored in weights.list_networks() if stored.entry.model in ("depthwise", "alexnet")]
    weights.write_weights(tmp_path / "own", few)
    return tmp_path / "own"


@pytest.fixture
def frugalnet(capsys, monkeypatch):
    """Calls the command; returns its exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["frugalnet", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        code = end.value.code
        return (code, out, err) if isinstance(code, int) else (1, out, f"{err}{code}\n")

    return call


def best(**limits: float) -> choice.Option:
    return choice.fitting(choice.read_options()[0], Budget.model_validate(limits))[0]


def test_the_list_leaves_out_what_does_not_fit(frugalnet):
    options, measured = choice.read_options()
    assert measured
    code, out, _ = frugalnet("networks", "--max-bytes", "120k", "--json")
    listed = [(network["network"], network["format"]) for network in json.loads(out)]
    fits = {(option.stored.name, option.format) for option in options if option.bytes <= SMALL}
    assert code == 0
    assert set(listed) == fits
    assert len(fits) < len(options)
    assert {network["licence"] for network in json.loads(out)} == {"MIT"}
    top1 = [network["top1"] for network in json.loads(out)]
    assert top1 == sorted(top1, reverse=True)


def test_predict_opens_the_file_that_was_chosen(frugalnet, photo):
    chosen = best(weights_bytes=SMALL)
    assert chosen.format == "int8"
    code, out, err = frugalnet("predict", photo, "--max-bytes", SMALL, "--json")
    assert code == 0
    assert err.startswith(
        f"frugalnet: {chosen.stored.name}, the most accurate within the limits: top-1 {chosen.top1:.1%}"
    )
    assert f"{chosen.bytes:,} bytes as int8" in err
    network = runtime.open_stored(chosen.stored, "int8")
    guess = network.predict([np.asarray(Image.open(photo))])[0].named(5)
    (answer,) = json.loads(out)
    assert answer["network"] == chosen.stored.name
    assert answer["top"] == guess


def test_a_latency_is_said_with_the_machine_that_it_was_measured_on(frugalnet, photo):
    _, measured = choice.read_options()
    assert measured
    chosen = best(latency_ms=1)
    code, _, err = frugalnet("predict", photo, "--max-ms", "1")
    assert code == 0
    assert f", {chosen.latency_ms:.2f} ms on cpu {measured.machine['cpu']}, threads 1, " in err


def test_networks_that_nobody_has_timed_are_timed_on_demand(frugalnet, photo, own):
    code, _, err = frugalnet("predict", photo, "--weights", own, "--max-ms", "1000")
    assert code == 1
    assert err.endswith("time them with --measure\n")
    code, _, err = frugalnet("predict", photo, "--weights", own, "--max-ms", "1000", "--measure")
    assert code == 0
    assert re.match(r"frugalnet: alexnet-0, .* as onnx, \d+\.\d\d ms on cpu ", err), err
    code, out, _ = frugalnet("networks", "--weights", own, "--measure", "--json")
    assert all(network["latency_ms"] > 0 for network in json.loads(out))


def test_adapt_and_export_take_the_same_limits(frugalnet, tmp_path, own):
    generator = np.random.default_rng(0)
    for name, low in (("bright", 128), ("dark", 0)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for k in range(6):
            pixels = generator.integers(low, low + 128, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{k}.png")
    code, out, _ = frugalnet(
        "adapt", tmp_path / "mine", "--weights", own, "--max-macs", "4M", "--out", tmp_path / "net"
    )
    assert code == 0
    assert out.startswith("Starting from depthwise-0, the most accurate network within the limits: ")
    code, _, err = frugalnet("export", tmp_path / "out", "--weights", own, "--max-macs", "4M", "--copy")
    assert code == 0
    assert err.startswith("frugalnet: depthwise-0, the most accurate within the limits")
    assert (tmp_path / "out/model.int8.onnx").is_file()


def test_limits_apply_to_the_network_of_a_run(frugalnet, photo, own, monkeypatch):
    monkeypatch.setattr(commands, "_downloaded", lambda run_id, folder: own)
    code, out, _ = frugalnet("predict", photo, "--run", 32 * "0", "--max-macs", "4M", "--json")
    assert code == 0
    assert json.loads(out)[0]["network"] == "depthwise-0"


def test_limits_apply_to_a_single_file(frugalnet, photo, own):
    file = own / "depthwise-0.safetensors"
    assert frugalnet("networks", "--weights", file, "--max-macs", "4M")[1].count("depthwise-0") == 2
    code, _, err = frugalnet("predict", photo, "--weights", file, "--max-macs", "1M")
    assert code == 1
    assert "no network fits --max-macs 1,000,000; the closest, depthwise-0 " in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--max-macs", "0"], 2, "argument --max-macs: expected a number above 0, found '0'"),
        (["--max-ms", "soon"], 2, "argument --max-ms: expected a number, as 4000000, 4M, 100k or 1.5G; found 'soon'"),
        (["--max-macs", "4M", "--model", "frugal"], 1, "frugalnet: --model and limits: give one of them"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(frugalnet, photo, words, code, said):
    ended, _, err = frugalnet("predict", photo, *words)
    assert ended == code
    assert err.endswith(f"{said}\n")


def test_a_format_is_taken_of_the_network_that_is_named(frugalnet, photo, own):
    words = ("predict", photo, "--weights", own, "--model", "depthwise", "--format", "int8")
    code, out, err = frugalnet(*words, "--json")
    assert (code, err) == (0, "")
    (answer,) = json.loads(out)
    stored = weights.choose_network("depthwise", own)
    assert answer["top"] == runtime.open_stored(stored, "int8").predict([np.asarray(Image.open(photo))])[0].named(5)
    assert answer["top"] != runtime.open_stored(stored).predict([np.asarray(Image.open(photo))])[0].named(5)
    listed = json.loads((own / "weights.json").read_text())
    (entry,) = [entry for entry in listed["networks"] if entry["model"] == "depthwise"]
    del entry["int8"]
    (own / "weights.json").write_text(json.dumps(listed))
    code, _, err = frugalnet(*words)
    assert (code, err) == (1, "frugalnet: depthwise-0: has no int8 file; write one with frugalnet export\n")


def test_a_format_that_no_network_has_is_named(frugalnet, photo, own):
    listed = json.loads((own / "weights.json").read_text())
    for entry in listed["networks"]:
        (own / entry.pop("int8")["file"]).unlink()
    (own / "weights.json").write_text(json.dumps(listed))
    code, _, err = frugalnet("predict", photo, "--weights", own, "--format", "int8")
    assert code == 1
    assert err == f"frugalnet: {own}: holds no int8 file; write some with frugalnet export\n"
