"""The training loop and its state."""

MODULES = ("cmer.training.loop", "cmer.training.assemble", "cmer.training.checkpoint")
"""What every training executes besides its method and its backbone: the roots of its code digest."""
