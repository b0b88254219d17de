"""Peak memory of training without the page cache: python -m benchmarks.memory FOLDER MODEL VIEWS."""

import dataclasses
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.data import Data, load_params
from benchmarks.ours import end_of_epoch, logger, new_trainer
from frugalnet import compute
from frugalnet.data import arrays
from frugalnet.training.batches import Views

_EPOCHS = 4  # one view each, so at most four views
_STEPS = 8  # per epoch
_EVALUATED = 2000  # images evaluated after each epoch


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon: this needs Linux")


def main(folder: Path, model: str, view_count: int) -> None:
    params = load_params()
    device = compute.setup(params.compute)
    views = Views(folder / "views")
    views.sha256 = dict(sorted(views.sha256.items())[:view_count])
    dataset = arrays.read_dataset(folder / "arrays")
    evaluated = arrays.Split(dataset.validation.images[:_EVALUATED], dataset.validation.labels[:_EVALUATED])
    data = Data("", folder, dataclasses.replace(dataset, validation=evaluated), views, Path())
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _anonymous_bytes())
            time.sleep(0.002)

    with tempfile.TemporaryDirectory() as temporary:
        trainer = new_trainer(model, data, params, device)
        on_epoch = logger(model, data, params, device, Path(temporary))
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        for epoch in range(_EPOCHS):
            end_of_epoch(trainer, data, epoch, _STEPS, Path(temporary), on_epoch)
        done.set()
        watcher.join()
    print(json.dumps({"peak_bytes": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
