"""Experiment: how networks fail on changed pictures, one-pixel attacks and common corruptions."""
