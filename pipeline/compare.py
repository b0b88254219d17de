"""Everything that was evaluated on the present data, in one report."""

from pathlib import Path

from frugalnet import tracking
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.files import sha256_of
from frugalnet.report import comparison, page, tables


def main() -> None:
    data = arrays.load(Path("data/arrays"))
    records = comparison.load(Path("results/evaluate"), Path("results/train"))
    compared = comparison.compare(records, sha256_of(data.sha256), data.validated_on)
    page.write(compared, Path("results/compare"), data.validation.images)
    runs = sorted(record.run["fingerprint"] for group in compared.records.values() for record in group)
    identity, tags = {"compared_runs_sha256": sha256_of(runs)}, {"data": data.name}
    tracked = tracking.TrackedRun(tracking.project_root(), "comparison", identity, tags, tracking.provenance())
    top1 = {row.model: row.top1.mean for row in compared.rows}
    tracked.log_results(tracking.section("top1", top1), [Path("results/compare")])
    tracked.finish()
    print(tables.table_text(compared.rows))


if __name__ == "__main__":
    run_stage(main)
