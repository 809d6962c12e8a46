"""`build` makes the backbone that a config describes."""

from __future__ import annotations

from cmer.backbones.base import Backbone
from cmer.config.backbones import BackboneOptions, FeatureOptions
from cmer.errors import UserError
from cmer.registry import BACKBONES


def build(options: BackboneOptions) -> Backbone:
    """The frozen backbone that the options describe, on the CPU, in eval mode.

    Raises:
        UserError: its weights cannot be had or do not fit the model.
    """
    backbone: Backbone = BACKBONES.get(options.kind)(options)
    return backbone.freeze()


def resolve_blocks(options: FeatureOptions, backbone: Backbone) -> FeatureOptions:
    """The options with `null` blocks spelled out; a `UserError` where the backbone lacks a block."""
    chosen = {}
    for key, offered in (("blocks", backbone.shapes.blocks), ("text_blocks", backbone.shapes.text_blocks)):
        asked = getattr(options, key)
        chosen[key] = list(range(len(offered))) if asked is None else asked
        unknown = [block for block in chosen[key] if block not in range(len(offered))]
        if unknown:
            raise UserError(f"features.{key}: {unknown} not among the backbone's blocks 0 to {len(offered) - 1}")
    return options.model_copy(update=chosen)
