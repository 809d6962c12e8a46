"""Settings of the backbone."""

from cmer.backbones.tiny.options import TinyOptions
from cmer.registry import BACKBONE_OPTIONS


@BACKBONE_OPTIONS.register("wide_tiny")
class WideTinyOptions(TinyOptions):
    printed: str = "wide tiny"
    seed: int = 5
