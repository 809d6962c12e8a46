"""Settings of cross_modal_adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("cross_modal_adapter")
class CrossModalAdapterOptions(TowerOptions):
    """Adapters whose up-projection the two towers share in part."""

    preset: Literal["official", "paper_count"] = Field(
        default="paper_count",
        description="official: 8 wide, at every site its own; paper_count: 64 wide, one for all blocks",
    )
