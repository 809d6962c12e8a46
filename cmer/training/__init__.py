"""The training loop, its state, and a run from spec to checkpoint."""

MODULES = ("cmer.training.loop", "cmer.training.run", "cmer.training.checkpoint")
"""Modules that every training executes besides those of its method and backbone: the roots of its code digest."""
