"""Trained networks outside the pipeline: pictures, stored weights, exported files, servers."""
