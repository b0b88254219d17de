"""The comparison, the experiments and the paper's claims together: findings and one report."""
