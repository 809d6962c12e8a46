"""The training loop, its state, and a run from spec to checkpoint."""

MODULES = ("cmer.training.run",)
"""What every training executes besides its method and its backbone: the roots of its code digest."""
HEAT_MAPS = ("cmer.training.heat_maps",)
"""What every heat map executes besides its method and its backbone."""
