"""Settings of amfmn."""

from __future__ import annotations

from pydantic import Field

from cmer.config.methods import Scoring
from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("amfmn")
class AmfmnOptions(CnnGruOptions):
    """AMFMN (ResNet-18, GRU of 2,400, texts gated by the image)."""

    unused_parts: bool = Field(
        default=True, description="hold the parts that the release declares, counts and never uses"
    )

    @property
    def scoring(self) -> Scoring:
        """See `MethodOptions`: the image gates every text."""
        return "conditioned"
