"""Settings of amfmn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cmer.config.methods import Scoring
from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("amfmn")
class AmfmnOptions(CnnGruOptions):
    """AMFMN (ResNet-18, GRU of 2,400, texts gated by the image)."""

    text_model: Literal["gru", "minilm"] = Field(
        default="gru",
        description="text tower: the GRU, or MiniLM with its weights, which trains at a tenth of the rate",
    )
    unused_parts: bool = Field(
        default=True, description="hold the parts that the release declares, counts and never uses"
    )

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; MiniLM has no settings of its own."""
        found = super().differences()
        return found | {"text": self.text_model} if found.pop("text_model", None) else found

    @property
    def scoring(self) -> Scoring:
        """See `MethodOptions`: the image gates every text."""
        return "conditioned"
