"""What a run's bits depend on where this process runs: python -m frugalnet.cluster.environment COMPUTE.

A process of its own, because the one that waits for trainings should not hold torch, nor a GPU's memory.
"""

import json
import sys

from frugalnet import compute
from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import in_one_line


def main(settings: str) -> None:
    config = ComputeConfig.model_validate_json(settings)
    print(json.dumps(compute.bits_depend_on(compute.setup(config), config)))


if __name__ == "__main__":
    with in_one_line("environment"):
        main(sys.argv[1])
