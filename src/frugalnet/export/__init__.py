"""Experiment: what networks are worth as files for other runtimes, by accuracy, bytes, latency and memory."""
