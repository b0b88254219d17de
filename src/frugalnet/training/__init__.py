"""From arrays and a recipe to weights, reproducible and resumable."""
