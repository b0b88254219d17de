"""Move the aliases `champion` and `frugal` of MLflow's model registry, and say why: python -m frugalnet.promote."""

from frugalnet import project, registry
from frugalnet.errors import in_one_line

if __name__ == "__main__":
    with in_one_line("promote"):
        print("\n".join(registry.promote(project.project_root())))
