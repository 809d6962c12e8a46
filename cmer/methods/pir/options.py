"""Settings of pir."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from cmer.config.base import Positive, Weight, Width
from cmer.config.places import local_weights
from cmer.methods.layers.settings import TimmName, Weights, require_lite
from cmer.methods.layers.stage_settings import StageOptions
from cmer.registry import METHOD_OPTIONS

SWIN = "swin_tiny_patch4_window7_224.ms_in1k"
"""Timm's name of the published image tower."""
PATCH = 4
"""Side of a patch, pixels."""
ATTENTION_HEADS = 8
"""Heads of the progressive attention."""
SWIN_SIZES = ("width", "depths", "heads", "window")
"""Settings that another image tower than Swin does not have."""
SIZES = ("image_size", "image_model", *SWIN_SIZES, "scene_model", "text_model", "embedding", "kept_tokens")
"""Settings that say how large the system is."""


@METHOD_OPTIONS.register("pir")
class PirOptions(StageOptions):
    """PIR (Swin, a frozen ResNet of scenes, BERT, progressive attention); the defaults are the published sizes."""

    note: ClassVar[str] = "the ResNet is frozen; its forward pass counts"

    image_model: TimmName = Field(
        default=SWIN, description="timm's name of the trained image tower: this Swin in the sizes above, or a CNN"
    )
    scene_model: TimmName = Field(default="resnet50.a1_in1k", description="timm's name of the frozen model of scenes")
    image_weights: Weights = "imagenet"
    scene_weights: Weights = "imagenet"
    embedding: Annotated[Width, Field(multiple_of=ATTENTION_HEADS)] = Field(
        default=512, description="width of the shared space and of the progressive attention"
    )
    kept_tokens: Positive = Field(default=40, description="image tokens that the scene ranks highest and that are kept")
    affiliation: Weight = Field(default=1.0, description="weight of the affiliation loss; 0: none")

    @model_validator(mode="after")
    def _towers_fit(self) -> Self:
        for tower in ("image", "scene"):
            require_lite(tower, getattr(self, f"{tower}_model"), getattr(self, f"{tower}_weights"))
        fields = type(self).model_fields
        changed = [name for name in SWIN_SIZES if getattr(self, name) != fields[name].default]
        if changed and self.image_model != SWIN:
            raise ValueError(
                f"{', '.join(changed)}: sizes of Swin; {self.image_model} has none of them, leave them out"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        unit = PATCH * 2 ** (len(self.depths) - 1)
        if self.image_size % unit:
            raise ValueError(
                f"image_size: {self.image_size} must be a multiple of {unit}, the stride of the last stage"
            )
        if self.kept_tokens > self.tokens:
            raise ValueError(f"kept_tokens: {self.kept_tokens} of the {self.tokens} image tokens cannot be kept")
        return self

    @property
    def tokens(self) -> int:
        """Tokens of an image: those of the last map, which has a CNN's usual stride, and their mean."""
        side = self.image_size // (PATCH << len(self.depths) - 1)
        return side**2 + 1

    @property
    def towers(self) -> str:
        """See `MethodOptions`."""
        return super().towers if "sizes" in self.differences() else "Swin-T+ResNet50"

    def places(self) -> list[str]:
        """See `MethodOptions`."""
        return local_weights(self.image_weights, self.scene_weights, known=("imagenet", "lite"))

    def without_weights(self) -> Self:
        """See `MethodOptions`."""
        return self.model_copy(update={"pretrained": False, "image_weights": None, "scene_weights": None})

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; the sizes are described together, and weights by their origin."""
        found = super().differences()
        if [name for name in SIZES if found.pop(name, None)]:
            swin = f"Swin {'-'.join(map(str, self.depths))} from {self.width} wide"
            image = swin if self.image_model == SWIN else self.image_model
            scene = self.scene_model.partition(".")[0]
            found["sizes"] = f"{self.image_size} pixels, {image}, {scene}, {self.text_model}"
        for tower in ("image", "scene"):
            weights = getattr(self, f"{tower}_weights")
            if weights is None:
                found[f"{tower}_weights"] = f"random {tower} weights"
        if not self.affiliation:
            found["affiliation"] = "no affiliation loss"
        return found
