"""Train one architecture with one seed: the stage train@MODEL-SEED, or python -m pipeline.train MODEL SEED."""

import json

from frugalnet import compute, config, project, tracking
from frugalnet.stage import run_stage
from frugalnet.training import recorded, runs


def main(model: str, seed: int) -> None:
    params = config.read_params()
    if params.distributed.kind != "none":
        from frugalnet.distributed.run import Task, train  # here: a single process needs nothing of it

        task = Task(model, seed, params.train, params.distributed, params.launch, params.compute)
        return train(task)
    device = compute.setup(params.compute)
    job = runs.job(model, seed, params.train, taught=bool(params.teacher.model))
    environment = compute.bits_depend_on(device, params.compute)
    run = runs.describe(job, environment, teacher=params.teacher.stated())
    print(f"{run.name} on {job.data.name}; its bits depend on {json.dumps(environment)}")
    if params.train.start == "committed":
        start = run.start
        begun = f"{start.file}, trained on {start.data}" if start else "random weights: weights/ has none of it"
        print(f"{run.name} starts from {begun}")
    if record := recorded.find_record(run, params.compute.records):
        return record.copy()  # the stage `evaluate` logs it
    root = project.project_root()
    runs.tell_of_other_checkpoints(root, run)
    checkpoints = runs.checkpoints(root, run)
    provenance = project.provenance()
    trainer = job.trainer(device, compute.compile_mode(device, params.compute))
    with checkpoints.locked(), tracking.training_run(root, run, provenance) as tracked:
        minutes = params.compute.checkpoint_minutes
        job.fit(trainer, checkpoints, minutes, on_epoch=lambda history: tracked.log_history(history.rows))
        timing = {**provenance, "machine": compute.describe_machine(device)}
        tracked.identify("weights_sha256", runs.write_results(run, trainer, timing))


if __name__ == "__main__":
    run_stage(main)
