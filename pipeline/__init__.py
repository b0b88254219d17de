"""The stages: one file each, `python -m pipeline.<stage>` from the project's folder."""

import sys
from pathlib import Path

# A stage runs the library of its own copy of the project (`dvc exp run --temp` makes one), not the installed one.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
