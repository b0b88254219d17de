"""Write docs/models/: a model card of each network in weights/, from the record of its run. python -m tools.cards"""

import json
from importlib import import_module
from pathlib import Path

import numpy as np

from frugalnet.document.wording import NOT_MEASURED, count, human, interval, markdown, percent
from frugalnet.errors import in_one_line
from frugalnet.export import section as device
from frugalnet.export.result import Exported, read_exported
from frugalnet.files import atomic, read_json
from frugalnet.metrics.statistics import Interval, wilson_interval
from frugalnet.use import weights
from tools.verify import record_of

RESULTS, CARDS = Path("docs/results"), Path("docs/models")
TEMPLATE = """\
---
license: mit
library_name: pytorch
pipeline_tag: image-classification
tags: [image-classification, tiny-imagenet, efficient]
metrics: [accuracy]
model-index:
- name: frugalnet-{model}
  results:
  - task: {{type: image-classification}}
    dataset: {{name: {data}, type: {data}, split: validation}}
    metrics:
    - {{type: accuracy, name: top-1, value: {top1:.4f}}}
    - {{type: accuracy, name: top-5, value: {top5:.4f}}}
---

# {model}

{about}
It takes 64×64 RGB images and gives one of {classes} classes. It is one of the networks of
[frugalnet](../../README.md), which compares their accuracy with their computational cost.

## Use

    frugalnet predict photo.jpg --model {model}

Weights: `weights/{file}`, seed {seed}.

**Intended for** studying what accuracy costs, for teaching, and as a small example to export and serve. **Not for**
decisions about people or safety, nor for pictures unlike the training data: the network always names one of its
{classes} classes, whatever the picture shows. It sees 64×64 pixels, so small objects vanish. It is wrong on {wrong} of
the validation images, very unevenly by class. Its training data are photographs from the web, with ImageNet's biases.

## Figures

| | |
|---|---|
| top-1, on the {n:,} images of the validation split | {top1_text} (Wilson 95 % interval {interval}) |
| top-5 | {top5_text} |
| parameters, trainable | {parameters:,} |
| MACs per image | {macs} |
| energy of training | {energy} |
{exported}
## Training

{trained}; {environment}.
Recipe: {recipe}. Record, with accuracy by class: [{record}]({record}).
"""


def card(stored: weights.Stored, record: Path) -> str:
    """The model card of stored weights, in Markdown with Hugging Face's front matter.

    record: the folder of these weights' own run in docs/results/RECIPE. Its figures are theirs, not a mean over seeds.
    """
    entry, run, metrics = stored.entry, read_json(record / "run.json"), read_json(record / "metrics.json")
    joules, teacher = read_json(record / "timing.json")["epoch_joules"], run.get("teacher")
    taught = f"; learned from {teacher['model']}, weights {teacher['sha256'][:12]}…, too" if teacher else ""
    exported = read_exported(record.parent, entry.model, entry.seed)
    correct, n = np.array(round(metrics["top1"] * metrics["n"])), np.array(metrics["n"])
    top1 = Interval(metrics["top1"], *map(float, wilson_interval(correct, n)))
    return TEMPLATE.format(
        model=entry.model,
        file=entry.file,
        seed=entry.seed,
        data=json.dumps(entry.data),
        top1=metrics["top1"],
        top5=metrics["top5"],
        about=(import_module(f"frugalnet.models.{entry.model}").__doc__ or "")
        .split("\n\n")[0]
        .replace("\n", " ")
        .strip(),
        classes=len(stored.classes.ids),
        wrong=percent(1 - metrics["top1"], 0),
        top1_text=percent(top1.estimate, 2),
        interval=interval(top1),
        top5_text=percent(metrics["top5"], 2),
        n=metrics["n"],
        parameters=metrics["parameters_trainable"],
        macs=human(metrics["macs"]),
        energy=NOT_MEASURED if None in joules else f"{human(sum(joules))}J",
        exported=_on_a_device(exported) if exported else "",
        trained=f"{run['n_train']:,} images of {run['data']}, {count(run['train']['epochs'], 'epoch')}{taught}",
        environment=markdown(", ".join(f"{key} {value}" for key, value in run["environment"].items())),
        recipe=markdown(", ".join(f"{key} {value}" for key, value in run["train"].items())),
        record=f"../results/{record.parent.name}/{record.name}",
    )


def _on_a_device(exported: Exported) -> str:
    table = device.table([exported])
    lines = [table.header[1:], ("---", *["--:"] * (len(table.header) - 2))]
    for row in table.rows:
        texts = [f"{one.text} ({', '.join(one.below)})" if one.below else one.text for one in row[1:]]
        lines.append(tuple(map(markdown, texts)))
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\n## On a device\n\n{rows}\n\n{markdown(device.note([exported]))}\n"


def main() -> None:
    with atomic(CARDS) as folder:
        folder.mkdir()
        for stored in weights.of_folder(weights.project_folder()):
            text = card(stored, record_of(stored, RESULTS))
            (folder / f"{stored.entry.model}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with in_one_line("cards"):
        main()
