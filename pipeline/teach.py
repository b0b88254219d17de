"""A teacher's logits for every view of the training split, if `teacher` names one."""

from pathlib import Path

import torch

from frugalnet import compute, config
from frugalnet.check import check
from frugalnet.data import arrays
from frugalnet.stage import run_stage
from frugalnet.training import distillation
from frugalnet.training.batches import Normaliser, Views
from frugalnet.training.inference import infer


def main() -> None:
    params = config.read_params()
    check(params)
    device = compute.setup(params.compute)
    data = arrays.read_dataset(Path("data/arrays"))
    views = Views(Path("data/views"))
    normalise = Normaliser(data.mean, data.std, device)
    images = (views.of_epoch(view, data.train.images) for view in range(max(1, len(views.sha256))))
    teacher = distillation.teacher(params.teacher, len(data.class_ids))
    if teacher:
        teacher.to(device).to(memory_format=torch.channels_last)
    logits = (infer(teacher, view, normalise) for view in images) if teacher else ()
    distillation.write_logits(logits, Path("data/teacher"))


if __name__ == "__main__":
    run_stage(main)
