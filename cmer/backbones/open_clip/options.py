"""Settings of the open_clip backbone."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from cmer.config.backbones import BackboneOptions
from cmer.config.base import Seed, Text
from cmer.registry import BACKBONE_OPTIONS

QUICK = "-quickgelu"


@BACKBONE_OPTIONS.register("open_clip")
class OpenClipOptions(BackboneOptions):
    """An open_clip model by name, with a pretrained tag, a local weight file, or random weights."""

    gpu: ClassVar[bool] = True
    memory_mb: ClassVar[int] = 16000  # ViT-H-14 has 4 GB of weights, there twice while they are read

    printed: Text = Field(default="", description="name printed in the tables; by default the model's")
    model: Text = Field(description="open_clip model name, e.g. ViT-B-16-quickgelu")
    pretrained: Text | None = Field(default=None, description="open_clip tag, e.g. openai")
    weights: Text | None = Field(default=None, description="local weight file instead of a tag")
    quick_gelu: bool | None = Field(
        default=None, description="activation the local weight file was trained with; needed with `weights`"
    )
    seed: Seed = Field(default=0, description="seed of the random weights where neither tag nor file is given")

    @model_validator(mode="before")
    @classmethod
    def _printed_is_the_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and "printed" not in data and isinstance(data.get("model"), str):
            return data | {"printed": data["model"].removesuffix(QUICK)}
        return data

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.pretrained and self.weights:
            raise ValueError("give `pretrained` (a tag) or `weights` (a file), not both")
        if self.weights and self.quick_gelu is None:
            raise ValueError("`weights` needs `quick_gelu`: true for OpenAI's checkpoints, false for most others")
        return self

    @classmethod
    def named(cls, name: str, kind: str) -> Self | None:
        """Any name may be a model's; building it says whether it is."""
        return None if name == kind else cls(kind=kind, printed=name, model=name)

    def places(self) -> list[str]:
        """See `BackboneOptions`: the weight file."""
        return [self.weights] if self.weights else []

    def without_weights(self) -> Self:
        """See `BackboneOptions`."""
        return self.model_copy(update={"pretrained": None, "weights": None})
