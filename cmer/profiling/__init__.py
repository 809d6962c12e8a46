"""The cost of a training step: trained parameters, memory, arithmetic and speed."""

MODULES = ("cmer.profiling.profile",)
"""Modules that every profile executes besides those of its methods and backbone: the roots of its code digest."""
