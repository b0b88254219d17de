"""The committed weights that networks start from, if the recipe says so; else none."""

from frugalnet import config
from frugalnet.run import Start
from frugalnet.stage import run_stage
from frugalnet.training.starts import FOLDER, write_starts
from frugalnet.use import weights


def main() -> None:
    stored = weights.of_folder(weights.project_folder()) if config.read_params().train.start == "committed" else []
    starts = {}
    for model in sorted({network.entry.model for network in stored}):
        first = min((network for network in stored if network.entry.model == model), key=lambda n: n.entry.seed)
        weights.check_file(first)
        starts[first.path] = Start(file=first.path.name, sha256=first.entry.sha256, data=first.entry.data)
    write_starts(starts, FOLDER)


if __name__ == "__main__":
    run_stage(main)
