"""Settings of swan."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from cmer.config.base import Width
from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.methods.layers.settings import TimmName
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("swan")
class SwanOptions(CnnGruOptions):
    """SWAN (frozen ResNet-50 with multi-scale fusion, bidirectional GRU with gated attention)."""

    printed: ClassVar[str] = "ResNet-50"

    image_model: TimmName = Field(default="resnet50.tv_in1k", description="name of a CNN of timm, with its tag")
    word_width: Width = Field(default=300, description="width of the word vectors")
    gru_width: Annotated[int, Field(ge=8, le=8192, multiple_of=8)] = Field(
        default=512, description="width of the GRU's states, of both towers' other layers, and of the embeddings"
    )
    train_cnn: bool = Field(default=False, description="train the CNN too")
    released_text: bool = Field(
        default=False,
        description="attend to words as the release does: with scores rounded down, and without effect of the n-grams",
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if self.image_weights is None and not self.train_cnn:
            raise ValueError("image_weights: a random CNN needs `train_cnn: true`")
        return self
