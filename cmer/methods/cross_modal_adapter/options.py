"""Settings of cross_modal_adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("cross_modal_adapter")
class CrossModalAdapterOptions(TowerOptions):
    """Adapters whose up-projection is partly shared between both towers."""

    preset: Literal["official", "paper_count"] = Field(
        default="paper_count",
        description="official: width 8, a separate adapter at every site; paper_count: width 64, one adapter for all "
        "blocks",
    )
