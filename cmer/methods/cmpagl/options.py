"""Settings of cmpagl."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from cmer.config.base import Weight, Width
from cmer.config.methods import Scoring
from cmer.methods.layers.stage_settings import StageOptions
from cmer.registry import METHOD_OPTIONS

PATCH = 4
"""Side of a patch, pixels."""
SIZES = ("image_size", "width", "depths", "heads", "window", "text_model")
"""Settings that say how large the towers are."""


@METHOD_OPTIONS.register("cmpagl")
class CmpaglOptions(StageOptions):
    """CMPAGL (Gswin image tower, BERT in two halves, pre-alignment); the defaults are the full size.

    The paper's sizes are not known: those of Swin-T and BERT-base are chosen.
    """

    note: ClassVar[str] = "reimplemented from the description; image tower trained from scratch"

    embedding: Width = Field(default=256, description="width of the shared space of the pre-alignment")
    global_window: bool = Field(default=True, description="attend from each window to the global one")
    pre_alignment: bool = Field(
        default=True,
        description="align the towers by ITC and triplet loss before fusion and retrieve by embeddings; false: train "
        "fusion alone and retrieve by the matching score of every pair",
    )
    intra_class: Weight = Field(default=1.0, description="weight of the triplet loss's intra-class term; 0: none")

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        unit = PATCH * self.window * 2 ** (len(self.depths) - 1)
        windows, rest = divmod(self.image_size, unit)
        if rest or windows.bit_count() != 1:
            raise ValueError(
                f"image_size: {self.image_size} pixels do not halve to the global window; with this window and number "
                f"of stages, use {unit}, {2 * unit} or another doubling of {unit}"
            )
        return self

    @property
    def sides(self) -> list[int]:
        """Side of each stage's map, in patches: the window's times a power of two."""
        return [self.image_size // PATCH // 2**stage for stage in range(len(self.depths))]

    @property
    def scoring(self) -> Scoring:
        """See `MethodOptions`: without pre-alignment, every pair is fused."""
        return "embedding" if self.pre_alignment else "pair"

    @property
    def protocols(self) -> tuple[str, ...] | None:
        """See `MethodOptions`: plain queries where every pair is fused."""
        return None if self.pre_alignment else ("none",)

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; the sizes are described together, the weight of an absent term as its absence."""
        found = super().differences()
        if [name for name in SIZES if found.pop(name, None)]:
            depths = "-".join(map(str, self.depths))
            found["sizes"] = f"{self.image_size} pixels, blocks {depths} from {self.width} wide, {self.text_model}"
        if not self.intra_class:
            found["intra_class"] = "no intra class term"
        if not self.pre_alignment:
            found.pop("intra_class", None)
        return found

    def variant_title(self) -> str:
        """See `MethodOptions`; none of the printed tables has this system."""
        return "CMPAGL"
