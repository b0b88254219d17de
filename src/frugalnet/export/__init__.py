"""Experiment: networks as files for other runtimes, their accuracy, size, latency and memory."""
