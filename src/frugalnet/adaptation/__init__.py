"""Experiment: what fine-tuning on a device gains and costs, by the part of the network that is trained."""
