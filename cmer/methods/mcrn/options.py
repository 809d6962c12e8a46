"""Settings of mcrn."""

from __future__ import annotations

from pydantic import Field

from cmer.config.base import Weight
from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("mcrn")
class McrnOptions(CnnGruOptions):
    """The image-text part of MCRN (AMFMN's image tower, GRU of 2,400, shared pattern transfer)."""

    alignment: Weight = Field(default=1000.0, description="weight of the alignment losses beside the triplet loss")
    unused_parts: bool = Field(
        default=True,
        description="hold the parts that the release declares and counts, but image-text training does not use, as "
        "the audio tower",
    )
