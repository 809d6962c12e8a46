"""The store of frozen block outputs."""

MODULES = ("cmer.features.extract",)
"""What every extraction executes besides its backbone: the root of its code digest."""
