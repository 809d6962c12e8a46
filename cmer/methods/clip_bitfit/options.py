"""Settings of clip_bitfit."""

from __future__ import annotations

from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("clip_bitfit")
class ClipBitfitOptions(TowerOptions):
    """Only the biases of both towers train."""
