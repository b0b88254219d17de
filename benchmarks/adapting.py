"""What training a classifier gives and costs with numpy and ONNX Runtime, and with PyTorch.

python -m benchmarks.adapting [--seeds 3] [--model depthwise] [METHOD ...]: the mean over seeds of the top-1 of the
held-out pictures and of its mean over the classes, with the seconds and the peak memory of the process. Sets of
pictures: handwritten digits of scikit-learn, drawn shapes, and, if data/arrays holds Tiny ImageNet, 40 of its classes
(validation pictures) and six with 400, 500, 120, 60, 40 and 8 pictures.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

METHODS = ("numpy", "numpy int8", "numpy unbalanced", "pytorch", "pytorch unbalanced")
UNBALANCED = (400, 500, 120, 60, 40, 8)
SHAPES = {"circle": 60, "triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6, "star": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="depthwise")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(Path(arguments.one[0]), arguments.model, arguments.methods[0], int(arguments.one[1]))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        for folder in write_sets(Path(temporary)):
            for method in arguments.methods:
                results = [in_process(folder, arguments.model, method, seed) for seed in range(arguments.seeds)]
                top1, mean, seconds, peak = np.mean(results, axis=0)
                print(
                    f"{folder.name:12} {method:18} top-1 {top1:.1%}, mean over classes {mean:.1%}, {seconds:.1f} s, "
                    f"{peak / 1e6:.0f} MB",
                    flush=True,
                )


def in_process(folder: Path, model: str, method: str, seed: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.adapting", method, "--model", model, "--one", folder, str(seed)]
    found: list[float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def measure(folder: Path, model: str, method: str, seed: int) -> list[float]:
    """Top-1, mean over classes, seconds and peak bytes: reading the pictures included, in this process."""
    from frugalnet.processes import peak_bytes
    from frugalnet.use import weights
    from frugalnet.use.labelled import hold_out, read_pictures
    from frugalnet.use.outcome import judge
    from frugalnet.use.retrained import Retrained
    from frugalnet.use.runtime import open_onnx

    start = time.perf_counter()
    stored = weights.choose_network(model)
    shown = read_pictures(folder, stored.entry.side)
    held = hold_out(shown.labels, shown.groups, seed)
    is_balanced = not method.endswith("unbalanced")
    pixels, labels = shown.pixels[~held], shown.labels[~held]
    if method.startswith("numpy"):
        trained = Retrained(stored, pixels, labels, is_balanced)
        run = trained.run
        if method.endswith("int8"):
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "int8.onnx"
                path.write_bytes(trained.files({}, Path(temporary))["int8"])
                run = open_onnx(path)
    else:
        from frugalnet.use.finetuned import FineTuned

        run = FineTuned(stored, pixels, labels, "classifier", seed, is_balanced).run
    predicted = run(shown.pixels[held]).argmax(axis=1)
    outcome = judge(shown.classes, np.bincount(shown.labels), shown.files, shown.labels[held], predicted)
    return [outcome.top1, outcome.mean_over_classes, time.perf_counter() - start, peak_bytes()]


def write_sets(root: Path) -> list[Path]:
    """Folders of pictures in class folders."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        image = Image.fromarray((values * 255 / 16).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        save(np.asarray(image.convert("RGB")), root / "digits" / str(label), number)
    generator = np.random.default_rng(0)
    for name, corners in SHAPES.items():
        for number in range(250):
            save(shape(corners, name == "star", generator), root / "shapes" / name, number)
    if not Path("data/arrays/dataset.json").is_file():
        return [root / "digits", root / "shapes"]
    from frugalnet.data.arrays import read_dataset

    data = read_dataset(Path("data/arrays"))
    for label in range(0, len(data.class_ids), 5):
        for number in np.flatnonzero(data.validation.labels == label):
            save(data.validation.images[number], root / "tiny" / data.class_ids[label], number)
    for label, count in zip(np.random.default_rng(0).permutation(len(data.class_ids)), UNBALANCED, strict=False):
        for number in np.flatnonzero(data.train.labels == label)[:count]:
            save(data.train.images[number], root / "unbalanced" / data.class_ids[label], number)
    return [root / "digits", root / "shapes", root / "tiny", root / "unbalanced"]


def shape(corners: int, is_star: bool, generator: np.random.Generator) -> NDArray[np.uint8]:
    """The outline of a polygon somewhere in a noisy picture, (96, 96, 3)."""
    image = Image.new("RGB", (96, 96), tuple(generator.integers(120, 256, 3).tolist()))
    x, y = generator.uniform(34, 62, 2)
    radius = generator.uniform(14, 32)
    turn = generator.uniform(0, 2 * math.pi)
    points = []
    for corner in range(corners):
        length = radius * (0.45 if is_star and corner % 2 else 1)
        angle = turn + 2 * math.pi * corner / corners
        points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
    ink = tuple(generator.integers(0, 120, 3).tolist())
    ImageDraw.Draw(image).line([*points, *points[:2]], ink, int(generator.integers(2, 6)))
    noisy = np.asarray(image).astype(np.float64) + generator.normal(0, 12, (96, 96, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def save(pixels: NDArray[np.uint8], folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels)).save(folder / f"{number}.png")


if __name__ == "__main__":
    main()
