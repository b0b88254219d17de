"""What is measured against what: run from the project's root, e.g. `python -m benchmarks.benchmark`."""
