"""What a training step costs: trained parameters, memory, arithmetic, speed."""

MODULES = ("cmer.profiling.profile",)
"""What every profile executes besides its methods and its backbone: the root of its code digest."""
