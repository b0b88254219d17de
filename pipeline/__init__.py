"""The stages: one file each, `python -m pipeline.<stage>` from the project's folder."""

import gc
import importlib.util
import os
import signal
import sys
from pathlib import Path

# A stage, and every process that it starts, runs the library of its own copy of the project (`dvc exp run --temp` makes
# one), not the installed one.
_SOURCE = str(Path(__file__).parents[1] / "src")
sys.path.insert(0, _SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_SOURCE, os.environ.get("PYTHONPATH")]))

if sys.argv[0] == "-m":  # `python -m pipeline.<stage>`: Ctrl-C while it imports; then run_stage takes over
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"interrupted\n"), os._exit(130)))
    from frugalnet import streams
    from frugalnet.processes import end_with_parent

    streams.make_usable()  # before anything else is opened
    gc.disable()  # until run_stage: imports make no garbage, and a third of torch's import is the search for it
    if "DVC_STAGE" in os.environ:
        end_with_parent()  # first of all: DVC may die while the stage imports torch
    if not importlib.util.find_spec("albumentations"):  # DVC starts stages with the first python on the path
        sys.exit(f"{sys.executable} lacks the project's packages: run `make install`, then `source .venv/bin/activate`")
