"""Settings shared by methods with embeddings in a shared space."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from cmer.config.base import Model, Rate, Width
from cmer.config.methods import MethodOptions
from cmer.registry import LOSSES


class Projection(Model):
    """The trained head per tower, which unaligned backbones need."""

    kind: Literal["linear", "mlp"] = "linear"
    dim: Width = Field(default=512, description="width of the shared space")
    hidden: Width = Field(default=1024, description="width of the mlp")
    dropout: Rate = 0.0


class EmbeddingOptions(MethodOptions):
    """Settings of methods that produce unit embeddings in a shared space."""

    projection: Projection = Projection()
    loss: str = Field(default="contrastive", description="module of cmer/losses/batch/")
    soft_multi_positive: bool = Field(
        default=False, description="treat captions with the same text in a batch as positives of each other"
    )

    @field_validator("loss")
    @classmethod
    def _loss_is_known(cls, name: str) -> str:
        LOSSES.check(name)
        return name

    def modules(self) -> tuple[str, ...]:
        """See `MethodOptions`: the module of the loss."""
        return (LOSSES.module(self.loss),)

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; the projection, which no published system has, is described by its kind only."""
        found = super().differences()
        found.pop("projection", None)
        return found | ({"projection": "mlp heads"} if self.projection.kind == "mlp" else {})


class TowerOptions(EmbeddingOptions):
    """Settings of methods that train within both towers, which stored features cannot replace."""

    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"
