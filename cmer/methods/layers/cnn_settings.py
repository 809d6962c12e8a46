"""Settings shared by systems of a CNN and a GRU."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import Width
from cmer.config.methods import MethodOptions
from cmer.config.places import local_weights
from cmer.methods.layers.settings import TimmName, Weights, require_lite


class CnnGruOptions(MethodOptions):
    """Settings of systems of a CNN on pixels and a GRU over words; the defaults are the published sizes."""

    own_towers: ClassVar[bool] = True
    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"
    note: ClassVar[str] = "reimplemented; word vectors and GRU, where there are any, start from random weights"
    printed: ClassVar[str] = "ResNet-18"
    """Name of the published CNN in the paper's tables."""

    image_size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = Field(
        default=256, description="side of the input, pixels"
    )
    image_model: TimmName = Field(default="resnet18.tv_in1k", description="name of a CNN of timm, with its tag")
    image_weights: Weights = "imagenet"
    word_width: Width = Field(default=620, description="width of the word vectors")
    gru_width: Width = Field(default=2400, description="width of the GRU's state")

    @model_validator(mode="after")
    def _lite_weights_fit(self) -> Self:
        require_lite("image", self.image_model, self.image_weights)
        return self

    @property
    def towers(self) -> str:
        """See `MethodOptions`."""
        return super().towers if {"image", "text"} & set(self.differences()) else self.printed

    @property
    def gpu(self) -> bool:
        """See `MethodOptions`: with the published CNN."""
        return bool(self.image_model == type(self)().image_model)

    def places(self) -> list[str]:
        """See `MethodOptions`."""
        return local_weights(self.image_weights, known=("imagenet", "lite"))

    def without_weights(self) -> Self:
        """See `MethodOptions`."""
        return self if self.image_weights == "lite" else self.model_copy(update={"image_weights": None})

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; the settings of a tower are described together, and unused parts change no result."""
        found = super().differences()
        found.pop("unused_parts", None)
        if [name for name in ("image_size", "image_model", "image_weights") if found.pop(name, None)]:
            found["image"] = f"{self.image_size} pixels, {self.image_model} ({self.image_weights or 'random'} weights)"
        if [name for name in ("word_width", "gru_width") if found.pop(name, None)]:
            found["text"] = f"GRU of {self.gru_width} on words of {self.word_width}"
        return found
