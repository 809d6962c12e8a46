"""Settings of ieft."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import Rate, Text, Width
from cmer.config.methods import MethodOptions, Scoring
from cmer.config.places import is_local
from cmer.methods.layers.settings import ImageSize
from cmer.registry import METHOD_OPTIONS

SIZES = ("image_size", "patch_size", "width", "heads", "blocks")
"""Settings that say how large the system is."""
MAPS_HEADS = 8
"""Heads of the attention that the released model declares and never calls."""


@METHOD_OPTIONS.register("ieft")
class IeftOptions(MethodOptions):
    """IEFT (a single stream of words and patches, scored pair by pair); the defaults are the published sizes."""

    own_towers: ClassVar[bool] = True
    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"
    note: ClassVar[str] = "a forward pass per pair: sixteen texts per image in training, all texts at test"

    image_size: ImageSize = Field(default=384, description="side of the input, pixels")
    patch_size: Annotated[int, Field(ge=4, le=64)] = Field(default=32, description="side of a patch, pixels")
    width: Annotated[Width, Field(multiple_of=MAPS_HEADS)] = Field(default=768, description="channels of a token")
    heads: Annotated[int, Field(ge=1, le=64)] = Field(default=12, description="attention heads of a block")
    blocks: Annotated[int, Field(ge=4, le=12)] = Field(default=6, description="blocks of the single stream")
    dropout: Rate = Field(default=0.1, description="in the embeddings and in all blocks")
    false_texts: Annotated[int, Field(ge=1, le=255)] = Field(
        default=15, description="texts of the batch that each image is told from in training"
    )
    weights: Text | None = Field(
        default="dandelin/vilt-b32-mlm-itm",
        description="ViLT's weights: repository on the Hugging Face hub, or a local folder, in transformers' layout; "
        "null: random weights",
    )
    declare_unused: bool = Field(
        default=True,
        description="declare the sub-modules that the released model never calls; the printed parameters include them",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size: {self.image_size} must be a multiple of the patch size, {self.patch_size}")
        for what, size in (("channels", self.width), ("patches", self.patches)):
            if size % self.heads:
                raise ValueError(f"heads: {size} {what} must be a multiple of {self.heads}")
        return self

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        side = self.image_size // self.patch_size
        return side * side

    @property
    def towers(self) -> str:
        """See `MethodOptions`."""
        return super().towers if "sizes" in self.differences() else "Vision Trans"

    @property
    def gpu(self) -> bool:
        """See `MethodOptions`: at full size."""
        return self.width >= type(self)().width

    @property
    def scoring(self) -> Scoring:
        """See `MethodOptions`."""
        return "pair"

    @property
    def protocols(self) -> tuple[str, ...]:
        """See `MethodOptions`: plain queries, and true labels as a control, since every pair is a forward pass."""
        return "none", "oracle"

    def places(self) -> list[str]:
        """See `MethodOptions`."""
        return [self.weights] if self.weights is not None and is_local(self.weights) else []

    def scored_pairs(self, batch_size: int) -> int:
        """See `MethodOptions`: each image's own text and the false ones."""
        return batch_size * (1 + min(self.false_texts, batch_size - 1))

    def without_weights(self) -> Self:
        """See `MethodOptions`."""
        return self.model_copy(update={"weights": None})

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; the sizes are described together. Unused sub-modules change no score."""
        found = super().differences()
        found.pop("declare_unused", None)
        if [name for name in SIZES if found.pop(name, None)]:
            found["sizes"] = f"{self.image_size} pixels, {self.patches} patches, {self.blocks} blocks {self.width} wide"
        if self.weights is None:
            found["weights"] = "random weights"
        return found
