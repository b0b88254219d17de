"""Compare all networks evaluated on the present data: figures, tables and one report."""

from pathlib import Path

from frugalnet import project, runs_page, tracking
from frugalnet.config import read_params
from frugalnet.data import arrays, copies
from frugalnet.files import sha256_of, write_json
from frugalnet.stage import run_stage
from frugalnet.study import summary, tables
from frugalnet.study.experiments import gather
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose, write_report


def main() -> None:
    params = read_params()
    data = arrays.read_dataset(Path("data/arrays"))
    root = project.project_root()
    out = Path("results/compare")
    findings = conclude(gather(Path("results"), data, copies.read_near_copies(Path("data/arrays"))), params.budget)
    compared = findings.comparison
    write_report(compose(findings), out)
    write_json(Path("results/summary.json"), summary.summary(compared))

    runs = sorted(record.run.fingerprint for record in compared.records)
    names = [row.model for row in compared.rows]
    with tracking.comparison_run(root, names, data.name, sha256_of(runs)) as tracked:
        tracked.log_results(tracking.section("top1", {row.model: row.top1.mean for row in compared.rows}), [out])
        report = tracked.link("compare/report.html")
        tracked.describe(summary.of_all(compared) + runs_page.links(report=report))
    for row in compared.rows:
        for record in row.records:
            drawn = sorted((out / "figures").glob(f"{record.name}_*.png"))
            with tracking.training_run(root, record.run, record.timing) as tracked:
                tracked.log_history([epoch.model_dump() for epoch in record.history])
                figures = tracking.section("final", record.metrics.model_dump())
                tracked.log_results(figures | tracking.section("efficiency", record.efficiency()), drawn)
                pictures = {path.stem.removeprefix(f"{record.name}_"): tracked.link(path.name) for path in drawn}
                tracked.describe(summary.of_one(compared, row) + runs_page.links(report=report, **pictures))
    print(tables.terminal(compared.rows))


if __name__ == "__main__":
    run_stage(main)
