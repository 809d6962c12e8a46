"""Settings of the tiny backbone."""

from __future__ import annotations

from cmer.config.backbones import BackboneOptions
from cmer.config.base import Seed, Text
from cmer.registry import BACKBONE_OPTIONS


@BACKBONE_OPTIONS.register("tiny")
class TinyOptions(BackboneOptions):
    """A two-block random open_clip ViT for tests."""

    printed: Text = "tiny (random weights)"
    seed: Seed = 0
