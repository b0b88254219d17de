"""Write docs/models/: a model card of each network, from docs/results and weights/. python -m tools.cards"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from frugalnet.errors import UserError, in_one_line
from frugalnet.files import atomic, read_json
from frugalnet.metrics.statistics import Interval, SeedMean
from frugalnet.report import device
from frugalnet.report.wording import DURATIONS, NOT_MEASURED, human, interval, markdown, percent, scale, seed_mean
from frugalnet.use import weights

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

{where}

**Intended for** studying what accuracy costs, for teaching, and as a small example to export and serve. **Not for**
decisions about people or safety, nor for pictures unlike the training data: the network always names one of its
{classes} classes and knows no other things. It sees 64×64 pixels, so small objects vanish. It is wrong on {wrong} of
the validation images, very unevenly by class. Its training data are photographs from the web, with ImageNet's biases.

## Figures

| | |
|---|---|
| top-1, validation split | {top1_text} (95 % interval {interval}), {seeds} |
| top-5 | {top5_text} |
| parameters, trainable | {parameters:,} |
| MACs per image | {macs} |
| latency, batch 1 | {latency} |
| training | {epochs} epochs, recipe `{recipe}`, {training} |
| energy | {energy} |

Cost measured on: {machine}.
{exported}
## Training

{trained}.
Recipe: {full_recipe}. Code: commit {commit}.
The [report](../results/report.md) has accuracy by class, curves and confusion.
"""


def card(network: Mapping[str, Any], figures: Mapping[str, Any], results: Path, stored: weights.Stored | None) -> str:
    """The model card of one network of comparison.json (`figures`), in Markdown with Hugging Face's front matter."""
    facts = {name: markdown(text) for name, text in figures["facts"].items()}
    model, seeds, seconds = network["model"], network["seeds"], network["train_seconds"]
    about = (import_module(f"frugalnet.models.{model}").__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
    where = f"`weights/` does not hold this network: train it, with `dvc exp run -S model={model}`."
    if stored:
        entry = stored.entry
        where = (
            f"Weights: `weights/{entry.file}`, seed {entry.seed}, {percent(entry.top1, 2)} top-1 on {entry.n:,} images."
        )
    exported = device.read(results, model, seeds[0])
    return TEMPLATE.format(
        model=model,
        data=json.dumps(figures["facts"]["data"].partition(",")[0]),
        top1=network["top1"]["mean"],
        top5=network["top5"]["mean"],
        about=about,
        classes=figures["num_classes"],
        where=where,
        wrong=percent(1 - network["top1"]["mean"], 0),
        top1_text=seed_mean(SeedMean(**network["top1"])),
        interval=interval(Interval(**network["top1_interval"])),
        seeds=f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        top5_text=seed_mean(SeedMean(**network["top5"])),
        parameters=network["parameters_trainable"],
        macs=human(network["macs"]),
        latency=f"{network['latency_ms']['median']:.3g} ms" if network["latency_ms"] else NOT_MEASURED,
        epochs=network["epochs"],
        recipe=network["recipe"],
        training=scale([seconds["mean"]], DURATIONS)(seconds["mean"]) if seconds else f"time {NOT_MEASURED}",
        energy=f"{human(network['epoch_joules']['median'])}J per epoch" if network["epoch_joules"] else NOT_MEASURED,
        machine=facts["cost measured on"],
        exported=_on_a_device(exported) if exported else "",
        trained=f"Data: {facts['data']}. Trained on: {facts['trained on']}",
        full_recipe=facts["recipe"],
        commit=facts["commit"],
    )


def _on_a_device(exported: device.Exported) -> str:
    table = device.table([exported])
    lines = [table.header[1:], ("---", *["--:"] * (len(table.header) - 2))]
    for row in table.rows:
        texts = [f"{one.text} ({', '.join(one.below)})" if one.below else one.text for one in row[1:]]
        lines.append(tuple(map(markdown, texts)))
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\n## On a device\n\n{rows}\n\n{markdown(device.note([exported]))}\n"


def main() -> None:
    figures = read_json(RESULTS / "comparison.json")
    if figures["is_sample"]:
        raise UserError(f"{RESULTS} holds results on sample data, which make no model card")
    known = {stored.entry.model: stored for stored in reversed(weights.of_folder(weights.project_folder()))}
    with atomic(CARDS) as folder:
        folder.mkdir()
        for network in figures["networks"]:
            text = card(network, figures, RESULTS, known.get(network["model"]))
            (folder / f"{network['model']}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with in_one_line("cards"):
        main()
