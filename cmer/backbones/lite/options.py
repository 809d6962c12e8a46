"""Settings of the lite backbone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cmer.config.backbones import BackboneOptions
from cmer.config.base import Text
from cmer.registry import BACKBONE_OPTIONS


@BACKBONE_OPTIONS.register("lite")
class LiteOptions(BackboneOptions):
    """EfficientNet-Lite0 and MiniLM, pretrained, from Python wheels; not aligned with each other."""

    printed: Text = "lite (EfficientNet-Lite0 + MiniLM)"
    size: Annotated[int, Field(ge=32, le=2048, multiple_of=32)] = Field(
        default=224, description="side of the input, pixels"
    )
