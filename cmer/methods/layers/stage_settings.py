"""Settings shared by methods with a Swin-like image tower and a BERT of their own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import Width
from cmer.methods.layers.settings import BertOptions, ImageSize, Stages, require_heads


class StageOptions(BertOptions):
    """Sizes of an image tower in stages, of which each has half the side and twice the channels of the one before.

    The defaults are those of Swin-T.
    """

    own_towers: ClassVar[bool] = True
    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"

    image_size: ImageSize = Field(default=224, description="side of the input, pixels")
    width: Width = Field(default=96, description="channels of the first stage; each further stage has twice as many")
    depths: Stages = Field(default=[2, 2, 6, 2], description="blocks per stage")
    heads: Stages = Field(default=[3, 6, 12, 24], description="attention heads per stage")
    window: Annotated[int, Field(ge=2, le=32)] = Field(
        default=7, description="side of a window, in patches of the stage"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        require_heads(self.width, self.depths, self.heads)
        return self
