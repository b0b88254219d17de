"""Measurements of speed, run from the project's root, for example `python -m benchmarks.training`."""
