"""Compare all networks evaluated on the present data: figures, tables and one report."""

from pathlib import Path

from frugalnet import runs_page, tracking
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.files import sha256_of, write_json
from frugalnet.report import findings, page, summary, tables, whole


def main() -> None:
    data, root, out = arrays.load(Path("data/arrays")), tracking.project_root(), Path("results/compare")
    compared = whole.load(Path("results"), sha256_of(data.sha256), data.validated_on)
    further = whole.further_sections(compared, Path("results"))
    page.write(findings.find(compared), out, data.validation.images, further)
    write_json(Path("results/summary.json"), summary.summary(compared))

    runs, names = sorted(record.run["fingerprint"] for record in compared.records), [row.model for row in compared.rows]
    with tracking.comparison_run(root, names, data.name, sha256_of(runs)) as tracked:
        tracked.log_results(tracking.section("top1", {row.model: row.top1.mean for row in compared.rows}), [out])
        report = tracked.link("compare/report.html")
        tracked.describe(summary.of_all(compared) + runs_page.links(report=report))
    for row in compared.rows:
        for record in row.records:
            drawn = sorted((out / "figures").glob(f"{record.name}_*.png"))
            with tracking.training_run(root, record.run, record.timing) as tracked:
                tracked.log_history(record.history)
                figures = tracking.section("final", record.metrics)
                tracked.log_results(figures | tracking.section("efficiency", record.efficiency()), drawn)
                pictures = {path.stem.removeprefix(f"{record.name}_"): tracked.link(path.name) for path in drawn}
                tracked.describe(summary.of_one(compared, row) + runs_page.links(report=report, **pictures))
    print(tables.terminal(compared.rows))


if __name__ == "__main__":
    run_stage(main)
