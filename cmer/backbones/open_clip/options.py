"""Settings of the open_clip backbone."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from cmer.backbones.open_clip.cards import card, card_names
from cmer.config.backbones import BackboneOptions
from cmer.config.base import Seed, Text
from cmer.registry import BACKBONE_OPTIONS

QUICK = "-quickgelu"


@BACKBONE_OPTIONS.register("open_clip")
class OpenClipOptions(BackboneOptions):
    """Published weights by the name of their card, or a model of open_clip with a tag, a file, or random weights."""

    gpu: ClassVar[bool] = True
    memory_mb: ClassVar[int] = 16000  # ViT-H-14 has 4 GB of weights, there twice while they are read

    printed: Text = Field(default="", description="name printed in the tables; by default the card's or the model's")
    backbone: Text | None = Field(
        default=None,
        description="published weights, e.g. georsclip_vit_b_32 (cmer backbones lists them), in place of `model`, "
        "`pretrained` and `quick_gelu`",
        json_schema_extra={"enum": [*card_names(), None]},
    )
    model: Text = Field(default="", description="open_clip model name, e.g. ViT-B-16-quickgelu")
    pretrained: Text | None = Field(default=None, description="open_clip tag, e.g. openai")
    weights: Text | None = Field(
        default=None, description="local weight file instead of a tag, or a copy of the published one"
    )
    quick_gelu: bool | None = Field(
        default=None, description="activation the local weight file was trained with; needed with `weights`"
    )
    seed: Seed = Field(default=0, description="seed of the random weights where neither tag nor file is given")

    @model_validator(mode="before")
    @classmethod
    def _card_gives_the_model(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if not isinstance(data.get("backbone"), str):
            if "model" not in data:
                raise ValueError("one of `backbone` (published weights) and `model` (an open_clip model) is required")
            return {"printed": str(data["model"]).removesuffix(QUICK)} | data
        published = card(data["backbone"])
        given = {"model": published.model, "quick_gelu": published.quick_gelu}
        for key, value in given.items():
            if data.get(key) not in ("", None, value):
                raise ValueError(f"`{key}` is {data[key]}, but {data['backbone']} has {value}; remove the key")
        if data.get("pretrained"):
            raise ValueError("give `backbone` (published weights) or `pretrained` (a tag), not both")
        return {"printed": published.title} | data | given

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.pretrained and self.weights:
            raise ValueError("give `pretrained` (a tag) or `weights` (a file), not both")
        if self.weights and self.quick_gelu is None:
            raise ValueError("`weights` needs `quick_gelu`: true for OpenAI's checkpoints, false for most others")
        return self

    @classmethod
    def named(cls, name: str, kind: str) -> Self | None:
        """The name of a card, or any other, which may be a model's; building it says whether it is."""
        if name in card_names():
            return cls(kind=kind, printed=name, backbone=name).without_weights()
        return None if name == kind else cls(kind=kind, printed=name, model=name)

    def places(self) -> list[str]:
        """See `BackboneOptions`: the weight file."""
        return [self.weights] if self.weights else []

    def without_weights(self) -> Self:
        """See `BackboneOptions`."""
        return self.model_copy(update={"backbone": None, "pretrained": None, "weights": None})
