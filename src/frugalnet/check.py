"""Whether parameters can be used: all that can be known before any data is fetched. Takes seconds, for its imports."""

from pathlib import Path

from frugalnet import config
from frugalnet.data.policy import check_policy
from frugalnet.errors import UserError
from frugalnet.files import sha256
from frugalnet.training.config import TeacherConfig


def check(params: config.Params) -> None:
    """Try the augmentation, the device and the networks, and look for the teacher. Raises UserError, naming the key."""
    check_policy(params.augment.policy, params.data.side)
    for teacher in params.teacher.members:
        _check_teacher(teacher)
    from frugalnet import compute  # they import torch: what is wrong before needs none of it
    from frugalnet.models.check import check_architecture

    device = compute.setup(params.compute)
    compute.compile_mode(device, params.compute)
    if params.distributed.kind != "none" and device.type != "cuda":  # other hosts may have more GPUs
        from frugalnet.distributed.launch import check_workers

        batch = params.distributed.recipe(params.train).batch_size  # no data set makes larger ones
        check_workers(params.distributed, params.launch, params.train, device, batch)
    for key, name in config.named_networks(params):
        with config.naming(key):
            check_architecture(name, {params.data.side, *params.train.resolutions})


def _check_teacher(teacher: TeacherConfig) -> None:
    path = Path(str(teacher.weights))
    found = sha256(path) if path.is_file() else "no such file"
    if found != teacher.sha256:
        raise UserError(f"teacher.weights: {path}: expected a file with SHA-256 {teacher.sha256}, found {found}")
