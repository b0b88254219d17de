"""`frugalnet networks`, and the limits that predict, adapt and export take instead of a name."""

from pathlib import Path

import pytest

from frugalnet.errors import UserError
from frugalnet.recommendation import Budget
from frugalnet.use import choice
from frugalnet.use.weights import Classes, Entry, Export, Stored

# name, top-1, MACs, bytes of the ONNX file, top-1 and bytes of the int8 file
NETWORKS = (
    ("large-0", 0.52, 20_000_000, 3000, None, 900),
    ("small-0", 0.47, 3_000_000, 800, 0.46, 300),
    ("tiny-0", 0.40, 1_000_000, 400, 0.30, 200),
)


def stored(folder: Path, name: str, top1: float, macs: int, size: int, int8_top1: float | None, int8: int) -> Stored:
    for suffix, length in ((".onnx", size), (".int8.onnx", int8)):
        (folder / f"{name}{suffix}").write_bytes(b"0" * length)
    model, seed = name.split("-")
    fields = {"mean": [1.0] * 3, "std": [1.0] * 3, "recipe": {}, "data": "shapes", "data_sha256": "d", "n": 1000}
    entry = Entry(
        file=f"{name}.safetensors",
        sha256="s",
        model=model,
        seed=int(seed),
        classes="shapes.json",
        validated_on="hold-out",
        top1=top1,
        macs=macs,
        onnx=Export(file=f"{name}.onnx", sha256="o"),
        int8=Export(file=f"{name}.int8.onnx", sha256="i", top1=int8_top1),
        **fields,
    )
    return Stored(path=folder / entry.file, entry=entry, classes=Classes(ids=["a"], names=["a"]))


@pytest.fixture
def options(tmp_path) -> list[choice.Option]:
    machine = {"cpu": "A processor", "threads": 1}
    times = {"large-0": {"onnx": 2.0}, "small-0": {"onnx": 0.5, "int8": 0.6}}
    measured = choice.Latencies(machine=machine, latency_ms=times)
    return choice.list_options([stored(tmp_path, *network) for network in NETWORKS], measured)


def names(found: list[choice.Option]) -> list[str]:
    return [option.name for option in found]


def test_every_file_of_known_accuracy_is_listed_best_first(options):
    expected = ["large-0 onnx", "small-0 onnx", "small-0 int8", "tiny-0 onnx", "tiny-0 int8"]
    assert names(choice.fitting(options, Budget())) == expected


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({"macs": "4M"}, "small-0 onnx"),
        ({"weights_bytes": 400}, "small-0 int8"),
        ({"weights_bytes": 299}, "tiny-0 int8"),
        ({"latency_ms": 0.5}, "small-0 onnx"),
        ({"macs": "4M", "weights_bytes": 399}, "small-0 int8"),
    ],
)
def test_the_best_within_the_limits_comes_first(options, limits, best):
    assert choice.fitting(options, Budget.model_validate(limits))[0].name == best


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"weights_bytes": 100}, "no network fits --max-bytes 100; the closest, tiny-0 int8, needs 2 times as much as"),
        (
            {"macs": "2M", "latency_ms": 1},
            "no network is known to fit .*: not measured for tiny-0 onnx, tiny-0 int8",
        ),
    ],
)
def test_where_nothing_fits_the_closest_is_named_or_what_was_not_measured(options, limits, said):
    with pytest.raises(UserError, match=said):
        choice.fitting(options, Budget.model_validate(limits))


def test_a_line_has_the_interval_and_says_what_was_not_measured(options):
    lines = choice.table(options, None).splitlines()
    assert lines[0].split("  ")[0] == "network"
    cells = "large-0 onnx 52.0% (48.9 to 55.1 %) 20.00 M 3,000 2.00 ms shapes"
    assert lines[1].split() == cells.split()
    assert "not measured" in lines[-2]
    assert lines[-1] == "Licence of the networks: MIT; the data have their own."
    measured = choice.Latencies(machine={"cpu": "A processor"}, latency_ms={})
    assert choice.table(options, measured).splitlines()[-2].endswith("measured on: cpu A processor.")
