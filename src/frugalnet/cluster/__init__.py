"""The matrix of trainings in parallel on Ray: on the GPUs or cores of one machine, or on a cluster."""
