"""The training split → augmented views, and a contact sheet of them."""

from pathlib import Path

import numpy as np

from frugalnet import config
from frugalnet.data.augment import contact_sheet, write_views
from frugalnet.stage import run_stage


def main() -> None:
    params = config.read_params()
    images = Path("data/arrays/train_images.npy")
    views = Path("data/views")
    write_views(images, views, params.augment, processes=params.compute.processes)
    contact_sheet(
        np.load(images, mmap_mode="r"),
        [np.load(views / f"view_{view}.npy", mmap_mode="r") for view in range(params.augment.views)],
        Path("data/contact_sheet.png"),
    )


if __name__ == "__main__":
    run_stage(main)
