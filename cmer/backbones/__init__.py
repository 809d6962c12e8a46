"""Frozen encoders behind one interface: `build` makes the one that a config row describes."""

from cmer.backbones.base import Backbone
from cmer.config import BackboneOptions
from cmer.registry import BACKBONES

__all__ = ["build"]


def build(options: BackboneOptions) -> Backbone:
    """The frozen backbone of a config row, on the CPU, in eval mode.

    Raises:
        UserError: its weights cannot be had or do not fit the model.
    """
    kind: str = options.kind  # type: ignore[attr-defined]
    backbone: Backbone = BACKBONES.get(kind)(options)
    return backbone.freeze()
