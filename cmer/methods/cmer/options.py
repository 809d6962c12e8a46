"""Settings of CMER, and the names of their combinations in the paper's ablation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import Fraction, Rate, Weight, Width
from cmer.methods.layers.settings import MemberOptions
from cmer.registry import METHOD_OPTIONS

VARIANTS = {
    (False, False, False): "v1",
    (True, False, False): "v2",
    (True, True, False): "d1",
    (True, True, True): "d2",
}
"""(focus adapter, negative queue, scene prompt) → name in the CMER paper, Table 4."""
SWITCHES = {"focus_adapter", "queue_batches", "scene_prompt"}
"""Settings that turn off a part of the system, which the variant's name already states."""


@METHOD_OPTIONS.register("cmer")
class CmerOptions(MemberOptions):
    """CMER (text LoRA, Focus-Adapter side branch, negative recycling, scene prompts)."""

    text: Literal["lora", "side_branch"] = Field(
        default="lora",
        description="how the text tower is adapted; side_branch needs no backward pass through the tower",
    )
    lora_rank: Width = 16
    focus_adapter: bool = Field(default=True, description="use the image side branch (v2); false: v1")
    hidden: Width = Field(default=192, description="width of the side branch")
    heads: Annotated[int, Field(ge=1, le=256)] = Field(default=6, description="attention heads of the side branch")
    focus_field: Annotated[int, Field(ge=1, le=32)] = Field(
        default=2,
        description="side of an attention region, in patches; each head learns a bias for side⁴ pairs",
    )
    focus_dropout: Rate = Field(
        default=0.0, description="dropout on the inputs of the image side branch; the paper uses none"
    )
    focus_drop_path: Rate = Field(
        default=0.0, description="share of images that train without the image side branch; 0 in the paper"
    )
    queue_batches: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=4, description="length of the negative queue in batches; 0: no queue"
    )
    queue_loss: Literal["mean", "mean_violating", "sum_per_pair", "infonce"] = Field(
        default="mean",
        description="the queue's loss: the hinge of Eq. 16-18 as a mean over all entries, as a mean over those that "
        "violate the margin, or as a sum over entries (Eq. 18 as printed); or InfoNCE against the entries",
    )
    queue_weight: Weight = Field(default=1.0, description="weight of the queue's loss")
    margin: Annotated[float, Field(ge=0, le=2)] = Field(default=0.2, description="alpha of Eq. 16-17, between cosines")
    difficulty: Annotated[float, Field(ge=0, le=100)] = Field(
        default=0.5, description="beta of Eq. 18: how fast hard negatives lose weight"
    )
    scene_prompt: bool = Field(default=True, description="prepend scene labels to training captions")
    label_dropout: Fraction = Field(default=0.5, description="share of training captions drawn without their prompt")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        if self.members > 1 and self.text == "lora":
            raise ValueError(
                f"members: {self.members} need `text: side_branch`, because text LoRA would adapt one tower for all"
            )
        return self

    @model_validator(mode="after")
    def _queue_or_bank(self) -> Self:
        if self.bank_refresh and self.queue_batches:
            raise ValueError(
                f"bank_refresh: {self.bank_refresh} needs `queue_batches: 0`, because a bank takes the queue's place"
            )
        return self

    @property
    def text_input(self) -> Literal["features", "tokens"]:
        """Tokens for LoRA, which runs the text tower; frozen features for a side branch."""
        return "tokens" if self.text == "lora" else "features"

    def held_pairs(self, batch_size: int) -> int:
        """See `MethodOptions`: the negative queue."""
        return self.queue_batches * batch_size

    @property
    def variant(self) -> str:
        """v1, v2, d1 or d2; "" for any other combination of CMER's parts.

        The paper's d2 never drops its prompt, so d2 with label dropout is another system.
        """
        if self.scene_prompt and self.label_dropout > 0:
            return ""
        return VARIANTS.get((self.focus_adapter, self.queue_batches > 0, self.scene_prompt), "")

    def published(self) -> Self:
        """The settings of the published CMER, which uses the scene prompt for every training caption."""
        return type(self)(label_dropout=0.0)

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; settings of parts that are turned off do not count."""
        unused = self._unused()
        return {name: words for name, words in super().differences().items() if name not in unused}

    def _unused(self) -> set[str]:
        branch = self.focus_adapter or self.text == "side_branch"
        parts = {
            "lora_rank": self.text == "lora",
            **dict.fromkeys(("hidden", "heads"), branch),
            **dict.fromkeys(("focus_field", "focus_dropout", "focus_drop_path"), self.focus_adapter),
            **dict.fromkeys(("queue_weight", "queue_loss"), self.queue_batches > 0),
            **dict.fromkeys(("margin", "difficulty"), self.queue_batches > 0 and self.queue_loss != "infonce"),
            "label_dropout": self.scene_prompt,
        }
        turned_off = {name for name in SWITCHES if self.variant and not getattr(self, name)}
        return {name for name, in_effect in parts.items() if not in_effect} | turned_off

    def variant_title(self) -> str | None:
        """See `MethodOptions`; only d2 with the paper's settings is the published system."""
        if self.variant == "d2" and not self.differences():
            return None
        return f"CMER {self.variant}".strip()
