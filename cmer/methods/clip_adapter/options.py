"""Settings of clip_adapter."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("clip_adapter")
class ClipAdapterOptions(TowerOptions):
    """Bottleneck adapters in both towers."""

    note: ClassVar[str] = "the paper does not print its configuration; preset paper_count has the printed parameters"

    preset: Literal["houlsby64", "paper_count"] = Field(
        default="paper_count",
        description="houlsby64: width 64 with biases, after attention and MLP; paper_count: widths 105 (image) and 90 "
        "(text) without biases, after the MLP, which are uncommon but the only ones with the paper's counts",
    )
