"""Folders of results as the stages leave them, made of random numbers, to test comparison and report."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frugalnet.adaptation.config import TRAINED
from frugalnet.adaptation.result import AdaptationResult
from frugalnet.adaptation.result import NetworkResult as AdaptedNetwork
from frugalnet.comparison.compare import Comparison, Evidence, compare
from frugalnet.comparison.records import Epoch, read_records
from frugalnet.data.arrays import Dataset, Split
from frugalnet.metrics import accuracy, classes
from frugalnet.robustness.corruptions import KINDS
from frugalnet.robustness.result import Attacks, Corruption, NetworkResult, Outcome, RobustnessResult
from frugalnet.study.findings import Findings, conclude

# parameters_trainable, parameters_keras, MACs, top-1
NETWORKS: dict[str, tuple[int, int, int, float]] = {
    "alexnet": (414_696, 415_656, 28_000_000, 0.46),
    "depthwise": (73_800, 74_760, 4_200_000, 0.405),
    "residual": (73_800, 74_760, 4_200_000, 0.42),
    "mobilenet_v3_small": (1_700_000, 1_725_000, 59_000_000, 0.49),
    "resnet18": (11_270_000, 11_290_000, 560_000_000, 0.56),
    "shufflenet_v2_x0_5": (547_000, 556_000, 41_000_000, 0.452),
    "squeezenet1_1": (825_000, 825_000, 22_000_000, 0.43),
}
WIDTHS: dict[str, tuple[int, int, int, float]] = {  # the networks above at other widths
    "alexnet_x0_25": (31_248, 31_488, 2_100_000, 0.27),
    "alexnet_x0_375": (64_916, 65_276, 4_150_000, 0.33),
    "alexnet_x0_5": (111_480, 112_000, 7_400_000, 0.39),
    "depthwise_x0_5": (26_248, 26_800, 1_400_000, 0.33),
    "depthwise_x2": (233_416, 234_900, 14_300_000, 0.46),
    "depthwise_x3": (479_048, 481_900, 30_000_000, 0.50),
    "residual_x2": (233_416, 234_900, 14_300_000, 0.47),
}
PAPERS = ("dugong", "trolleybus", "bell pepper", "scoreboard", "black widow")
PAPERS += ("plunger", "Chihuahua", "reel", "bucket", "bow tie")
MARKUP = ("price of $\\frac$\n| salt", "<b>bow | tie</b>")  # a formula, a line break, a column, a tag


def of_epoch(**given: Any) -> Epoch:
    """An epoch whose other figures are 0."""
    return Epoch(**dict.fromkeys(Epoch.model_fields, 0) | given)


def class_names(num_classes: int) -> list[str]:
    return [*PAPERS, *(f"thing {c}" for c in range(10, num_classes - 2)), *MARKUP][-num_classes:]


def make(
    root: Path,
    models: tuple[str, ...] = ("alexnet", "depthwise", "residual"),
    seeds: tuple[int, ...] = (0, 1),
    num_classes: int = 12,
    n: int = 600,
    epochs: int = 8,
    is_sample: bool = False,
    recipe: dict[str, Any] | None = None,
    measured: bool = True,
    data_sha256: str = "d" * 64,
    data: str = "tiny-imagenet",
) -> Path:
    """Write evaluate/, train/ and cost.json into `root`, as a folder of results; returns it."""
    names = class_names(num_classes)
    labels = np.arange(n) % num_classes
    easy = np.random.default_rng(9).normal(size=n) + np.linspace(2, -2, num_classes)[labels]
    costs_of: dict[str, Any] = {}
    for model in models:
        trainable, keras, macs, top1 = (NETWORKS | WIDTHS)[model]
        for seed in seeds:
            generator = np.random.default_rng([trainable, macs, seed, round(1000 * top1)])
            luck = easy + generator.normal(size=n)
            right = luck > np.quantile(luck, 1 - top1 - 0.004 * seed)
            logits = generator.normal(size=(n, num_classes)).astype(np.float16)
            near = labels ^ 1
            near = np.where(near < num_classes, near, 0)
            other = np.where(
                generator.random(n) < 0.4, near, (labels + generator.integers(1, num_classes, n)) % num_classes
            )
            other = np.where(other == labels, (labels + 1) % num_classes, other)
            logits[np.arange(n), np.where(right, labels, other)] = 6
            logits[np.arange(n), np.where(right, other, labels)] = 4
            evaluated, trained = root / "evaluate" / f"{model}-{seed}", root / "train" / f"{model}-{seed}"
            evaluated.mkdir(parents=True)
            trained.mkdir(parents=True)
            np.savez(evaluated / "predictions.npz", logits=logits, labels=labels)
            costs = {
                "parameters_trainable": trainable,
                "parameters_keras": keras,
                "macs": macs,
                "weights_bytes": 4 * keras,
            }
            _json(evaluated / "metrics.json", accuracy.figures(logits, labels) | costs)
            confused = classes.confusion(accuracy.predict(logits), labels, num_classes)
            rows = classes.per_class(confused, [f"n{c:08}" for c in range(num_classes)], names)
            _csv(evaluated / "per_class.csv", [vars(row) for row in rows])
            layers = [
                {
                    "layer": f"conv{i}",
                    "kind": "Conv2d",
                    "output_shape": "128×7×7",
                    "parameters_trainable": trainable // 5,
                    "macs": macs * i // 15,
                }
                for i in range(1, 6)
            ]
            _csv(evaluated / "layers.csv", layers)
            latency = (macs / 1e6) ** 0.6
            step = {"median": 50 * latency, "p5": 48 * latency, "p95": 57 * latency, "n": 10}
            cost = {
                "latency_ms": {"median": latency, "p5": 0.93 * latency, "p95": 1.2 * latency, "n": 100},
                "throughput": {"median": 9e9 / macs, "p5": 8e9 / macs, "p95": 9.5e9 / macs, "n": 10},
                "train_latency_ms": {"median": 3 * latency, "p5": 2.8 * latency, "p95": 3.5 * latency, "n": 100},
                "train_step_ms": step,
                "train_throughput": {
                    key: 1000 * 256 / step[of] for key, of in (("median", "median"), ("p5", "p95"), ("p95", "p5"))
                }
                | {"n": 10},
                "layer_ms": {f"conv{i}": latency * (6 - i) / 15 for i in range(1, 6)},
                "cpu_seconds_per_image": latency / 5000,
                "cpu_seconds_per_training_image": latency / 1500,
                "peak_memory_forward_bytes": 120_000_000,
                "peak_memory_train_step_bytes": 480_000_000,
                "energy_joules_per_image": None,
                "energy_joules_per_training_image": None,
                "machine": {"device": "cpu", "cpu": "A processor", "threads": 2, "torch": "2.14.1", "batch_size": 256},
            }
            if measured:
                costs_of[model] = cost
            curve = 1 - np.exp(-3 * np.arange(1, epochs + 1) / epochs)
            history = [
                {
                    "epoch": e + 1,
                    "learning_rate": 0.1,
                    "train_macs": 10**12,
                    "train_loss": 5 - 3 * curve[e],
                    "train_top1": 1.1 * top1 * curve[e],
                    "validation_loss": 5 - 2.5 * curve[e],
                    "validation_top1": top1 * curve[e] + 0.01 * generator.random(),
                    "validation_top5": min(1.8 * top1 * curve[e], 1),
                }
                for e in range(epochs)
            ]
            _csv(trained / "history.csv", history)
            _json(
                trained / "run.json",
                {
                    "model": model,
                    "seed": seed,
                    "data": data,
                    "is_sample": is_sample,
                    "validated_on": "validation split",
                    "data_sha256": data_sha256,
                    "views_sha256": "e" * 64,
                    "fingerprint": f"{model}-{seed}",
                    "weights_sha256": f"{seed}" * 64,
                    "num_classes": num_classes,
                    "environment": {"torch": "2.14.1", "device": "cpu", "threads": 2, "machine": "x86_64"},
                    "n_train": 500 * num_classes,
                    "n_validation": n,
                    "train": {"recipe": "modern", "epochs": epochs, "batch_size": 256} | (recipe or {}),
                },
            )
            seconds = [macs / 4e5 * (1 + 0.05 * generator.random()) for _ in range(epochs)]
            _json(
                trained / "timing.json",
                {
                    "epoch_seconds": seconds,
                    "epoch_cpu_seconds": [1.9 * second for second in seconds],
                    "epoch_joules": [None] * epochs,
                    "mlflow.source.git.commit": "0123456789abcdef0123456789abcdef01234567",
                },
            )
    _json(root / "cost.json", costs_of)
    return root


def export(root: Path, *, models: tuple[str, ...] = ("alexnet", "depthwise"), seed: int = 0, loss: float = 1.0) -> None:
    """Write export/ and export_timing/ into `root`, as the stage export leaves them; int8 loses `loss` points."""
    kinds = {"pytorch": 1.02, "onnx": 1.0, "int8": 0.3, "executorch": 1.01}
    for model in models:
        _, keras, macs, top1 = NETWORKS[model]
        lost = {kind: loss if kind == "int8" else 0.0 for kind in kinds}
        found = {
            "n": 600,
            "validated_on": "validation split",
            "data": "fake",
            "calibration_images": 1000,
            "max_loss_points": 2.0,
            "int8_accepted": loss <= 2,
            "int8_classes_that_lose_most": [
                {"id": "n1", "name": MARKUP[1], "n": 50, "pytorch": 30, "int8": 21},
            ],
            "formats": {
                kind: {
                    "bytes": int(4 * keras * size),
                    "sha256": kind[0] * 64,
                    "top1": top1 - lost[kind] / 100,
                    "top5": 0.9,
                    "other_class": 7 * (kind == "int8"),
                    "largest_difference": 0.1,
                    "loss_points": {"estimate": lost[kind], "low": lost[kind] - 0.5, "high": lost[kind] + 0.5},
                }
                for kind, size in kinds.items()
            },
        }
        latency = {"median": macs / 3e7, "p5": macs / 4e7, "p95": macs / 2e7, "n": 100}
        cost = {"latency_ms": latency, "peak_memory_bytes": 61_300_000, "before_bytes": 27_800_000}
        machine = {"device": "cpu", "cpu": "A processor", "cores": 2, "threads": 1}
        machine |= {"cpu_capability": "AVX2", "torch": "2.14.1", "system": "Linux x86_64"}
        formats = {kind: cost | {"arena_bytes": 61_504 if kind == "executorch" else None} for kind in kinds}
        for folder, name, value in (
            ("export", "export.json", found),
            ("export_timing", "timing.json", {"formats": formats, "machine": machine}),
        ):
            (root / folder / f"{model}-{seed}").mkdir(parents=True)
            _json(root / folder / f"{model}-{seed}" / name, value)


def robustness(models: Iterable[str], quantised: Iterable[str] = (), n: int = 40) -> RobustnessResult:
    """Attacks on the first n pictures, of which each network loses six more, and corruptions.

    quantised: the networks that are measured as int8 too.
    """
    subjects = [*((model, "float32") for model in models), *((model, "int8") for model in quantised)]
    return RobustnessResult(
        seed=0,
        pixels=[1],
        candidates=100,
        generations=2,
        pictures=n,
        attacked=[*range(n)],
        labels=[k % 12 for k in range(n)],
        corrupted=[*range(n)],
        networks=[_attacked_network(model, kind, i, n) for i, (model, kind) in enumerate(subjects)],
    )


UNFOOLED = Outcome(queries=300)


def _attacked_network(model: str, kind: Any, lost: int, n: int) -> NetworkResult:
    fooled = [Outcome(queries=3 * k + 1, changes=[[k, 5, 255, 0, 0]], predicted=11) for k in range(10 + 6 * lost)]
    outcomes = [*fooled, *[UNFOOLED] * n][:n]
    by_chance = [*outcomes[:5], *[UNFOOLED] * (n - 5)]
    return NetworkResult(
        model=model,
        seed=0,
        format=kind,
        confidence=[round(0.5 + k / 100, 4) for k in range(n)],
        attacks=[Attacks(pixels=1, evolution=outcomes, random=by_chance)],
        clean="1" * (n - 10 - lost) + "0" * (10 + lost),
        corruptions=[
            Corruption(kind=name, right=["1" * (right := n // 2 - s - j % 3) + "0" * (n - right) for s in range(5)])
            for j, name in enumerate(KINDS)
        ],
    )


SCORES = {"general": 12, "restricted": 24, "classifier": 25, "norms": 26, "blocks": 27, "all": 28, "scratch": 9}


def adapted(models: Iterable[str], pictures: Sequence[int] = (10, 50)) -> AdaptationResult:
    """Outcomes of the stages adapt: the more is trained and the later the model, the more is right; two draws of 40."""
    networks = [
        _adapted(scenario, model, luck, pictures)
        for scenario in ("seen", "unseen")
        for luck, model in enumerate(models)
    ]
    return AdaptationResult(networks=networks)


def _adapted(scenario: str, model: str, luck: int, pictures: Sequence[int]) -> AdaptedNetwork:
    tried = [(method, number) for number in pictures for method in TRAINED]
    tried += [("general", 0), ("restricted", 0)] if scenario == "seen" else []
    right = {(method, number): SCORES[method] + luck + number // 25 for method, number in tried}
    settings: dict[str, Any] = {"scenarios": ["seen", "unseen"], "seed": 0, "draws": 2, "classes": 4}
    settings |= {"pictures": [*pictures], "steps": 200, "scratch_steps": 1000, "batch_size": 64, "unseen_epochs": 4}
    outcomes = [
        {"draw": d, "pictures": number, "method": method, "right": "1" * (k - d) + "0" * (40 - k + d)}
        for d in range(2)
        for (method, number), k in right.items()
    ]
    costs = {
        method: {
            "macs_per_picture": 10**6 * (k + 1),
            "steps": 200,
            "stored_bytes": 5000 * (k + 1),
            "saved_bytes_by_layer": {"conv1": 10**6 * k, "fc": 32768},
            "batch": 64,
        }
        for k, method in enumerate(TRAINED)
    }
    trainings = [
        {"draw": d, "pictures": number, "method": method, "seconds": 2.0 + k, "joules": None}
        for d in range(2)
        for number in pictures
        for k, method in enumerate(TRAINED)
    ]
    peaks = {method: 10**7 * (k + 1) for k, method in enumerate(TRAINED)}
    timing = {"trainings": trainings, "peak_memory_bytes": peaks, "machine": {"cpu": "A processor"}}
    return AdaptedNetwork.model_validate(
        {
            "model": model,
            "scenario": scenario,
            **settings,
            "learning_rate": dict.fromkeys(TRAINED, 0.01),
            "drawn": [["a"], ["b"]],
            "outcomes": outcomes,
            "costs": costs,
            "timing": timing,
        }
    )


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def comparison(root: Path, photographs: np.ndarray | None = None, **how: Any) -> Comparison:
    """The networks of what `make` makes. photographs: the validation images, to show some in the report."""
    return compare(read_records(make(root, **how)), "d" * 64, "validation split", photographs)


def compared(root: Path, photographs: np.ndarray | None = None, **how: Any) -> Evidence:
    """The comparison of what `make` makes, with what experiments measured of its networks."""
    networks = comparison(root, photographs, **how)
    models = sorted(row.model for row in networks.rows)
    return Evidence(networks, (robustness(models), adapted(models)))


def found(root: Path, photographs: np.ndarray | None = None, **how: Any) -> Findings:
    """The findings from what `make` makes."""
    return conclude(compared(root, photographs, **how))


def dataset(photographs: np.ndarray) -> Dataset:
    """Data with these validation images, (N, 64, 64, 3) uint8 RGB; give `make` its hash."""
    split = Split(photographs, np.zeros(len(photographs), np.int64))
    hashes = {"validation_images.npy": "0" * 64}
    return Dataset(split, split, [], [], [], [], "tiny-imagenet", False, "validation split", hashes)


def images(count: int = 600) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)
