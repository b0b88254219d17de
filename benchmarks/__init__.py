"""Speed and ablation experiments, run from the project's root, for example `python -m benchmarks.benchmark`."""
