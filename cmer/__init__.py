"""cmer: memory-efficient text-image retrieval for remote sensing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmer.inference.model import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, whose module imports torch, at its first use."""
    if name == "load":
        return import_module("cmer.inference.model").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
