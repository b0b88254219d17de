"""Ablation of the training recipe: `python -m benchmarks.ablation data.holdout=5000`.

Trains the speedrun recipe with one part changed at a time and prints top-1 on the validation images in `data/`. To
choose a recipe, those must be a hold-out of the training split: run `dvc exp run -S data.holdout=5000 augment` first.
Each setting runs the train stage in results/ablation/<setting>; finished settings are not rerun.
"""

import argparse
from pathlib import Path

from benchmarks.settings import figures, train
from frugalnet.errors import in_one_line
from frugalnet.files import write_json

FLIP = "{name: HorizontalFlip, p: 0.5}"
SHIFT = "{name: Pad, p: 1.0, padding: 6, border_mode: 4}, {name: RandomCrop, p: 1.0, height: 64, width: 64}"
SETTINGS = {
    "recipe": [],
    "decay-5e-5": ["train.weight_decay=5e-5"],
    "decay-5e-5-smoothing": ["train.weight_decay=5e-5", "train.label_smoothing=0.1"],
    "one-view": ["augment.views=1"],
    "flips-and-shifts": [f"augment.policy=[{FLIP}, {SHIFT}]"],
    "no-augmentation": ["augment=none"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="residual")
    parser.add_argument("--only", nargs="*", choices=SETTINGS, default=list(SETTINGS), metavar="SETTING")
    parser.add_argument("overrides", nargs="*", help="overrides for all settings, like those of dvc's -S")
    arguments = parser.parse_args()
    out = Path("results/ablation")
    measured = {}
    for name in arguments.only:
        common = [f"model={arguments.model}", "train=speedrun", *arguments.overrides]
        train(name, [*common, *SETTINGS[name]], out / name, arguments.model)
        measured[name] = figures(out / name, arguments.model)
        write_json(out / "table.json", measured)
    print("| setting | changed | top-1 | training top-1 | seconds |\n|---|---|--:|--:|--:|")
    for name, row in measured.items():
        top1 = f"{row['validation_top1']:.1%} | {row['train_top1']:.1%}"
        print(f"| {name} | {' '.join(SETTINGS[name]) or 'nothing'} | {top1} | {row['train_seconds']:.0f} |")


if __name__ == "__main__":
    with in_one_line("ablation"):
        main()
