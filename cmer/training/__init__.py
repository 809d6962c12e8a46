"""The training loop, its state, and a run from spec to checkpoint."""

MODULES = ("cmer.training.run",)
"""What every training executes besides its method and its backbone: the roots of its code digest."""
