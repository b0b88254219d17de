"""The logits of a teacher, or the mean of several, for every view of the training split, if `teacher` names one."""

from pathlib import Path

import numpy as np
import torch

from frugalnet import compute, config
from frugalnet.data import arrays
from frugalnet.stage import run_stage
from frugalnet.training import distillation
from frugalnet.training.batches import Normaliser, PerView
from frugalnet.training.inference import infer


def main() -> None:
    params = config.read_params()
    device = compute.setup(params.compute)
    data = arrays.read_dataset(Path("data/arrays"))
    views = PerView(Path("data/views"))
    normalise = Normaliser(data.mean, data.std, device)
    images = (views.of_epoch(view, data.train.images) for view in range(max(1, len(views.sha256))))
    teachers = [*filter(None, (distillation.teacher(each, len(data.class_ids)) for each in params.teacher.members))]
    for teacher in teachers:
        teacher.to(device).to(memory_format=torch.channels_last)
    logits = (np.mean([infer(teacher, view, normalise) for teacher in teachers], axis=0) for view in images)
    distillation.write_logits(logits if teachers else (), Path("data/teacher"))


if __name__ == "__main__":
    run_stage(main)
