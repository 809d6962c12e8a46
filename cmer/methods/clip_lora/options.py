"""Settings of clip_lora."""

from __future__ import annotations

from cmer.config.base import Positive
from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("clip_lora")
class ClipLoraOptions(TowerOptions):
    """LoRA in both towers."""

    lora_rank: Positive = 16
