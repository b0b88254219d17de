"""Compare all networks evaluated on the present data: figures, tables and one report."""

from dataclasses import replace
from pathlib import Path

from frugalnet import tracking
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.files import sha256_of
from frugalnet.report import comparison, findings, page, results, robustness, tables


def main() -> None:
    data, root, out = arrays.load(Path("data/arrays")), tracking.project_root(), Path("results/compare")
    compared = comparison.compare(results.load(Path("results")), sha256_of(data.sha256), data.validated_on)
    compared = replace(compared, robustness=robustness.load(Path("results/robustness/robustness.json")))
    page.write(findings.find(compared), out, data.validation.images)

    for record in compared.records:
        drawn = sorted((out / "figures").glob(f"{record.name}_*.png"))
        with tracking.training_run(root, record.run, record.timing) as tracked:
            tracked.log_results(tracking.section("efficiency", record.efficiency()), drawn)
    runs = sorted(record.run["fingerprint"] for record in compared.records)
    identity, tags = {"compared_runs_sha256": sha256_of(runs)}, {"data": data.name}
    with tracking.TrackedRun(root, "comparison", identity, tags, tracking.provenance()) as tracked:
        tracked.log_results(tracking.section("top1", {row.model: row.top1.mean for row in compared.rows}), [out])
    print(tables.terminal(compared.rows))


if __name__ == "__main__":
    run_stage(main)
