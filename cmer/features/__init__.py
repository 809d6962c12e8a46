"""The store of frozen block outputs."""

MODULES = ("cmer.features.extract",)
"""Modules that every extraction executes besides those of its backbone: the roots of its code digest."""
