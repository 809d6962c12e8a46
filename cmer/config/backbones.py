"""What every frozen backbone has; a kind's own settings lie in its folder of `cmer/backbones/`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny

from cmer.config.base import Model, Positive, validate_part
from cmer.registry import BACKBONE_OPTIONS, BACKBONES


def _ascending(blocks: list[int] | None) -> list[int] | None:
    if blocks is not None and (blocks != sorted(set(blocks)) or min(blocks, default=0) < 0):
        raise ValueError(f"{blocks} must be block numbers from 0, ascending, each once")
    return blocks


Blocks = Annotated[list[int] | None, AfterValidator(_ascending)]


class FeatureOptions(Model):
    """What is stored of the frozen towers."""

    blocks: Blocks = Field(default=None, description="image blocks kept; null keeps all")
    text_blocks: Blocks = Field(default=None, description="text blocks kept; null keeps all")
    views: Literal[1, 4, 8] = Field(
        default=1, description="dihedral views of each image: 1, the 4 quarter turns, or all 8"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"


class BackboneOptions(Model):
    """What every frozen backbone has.

    Class attributes:
        gpu: whether a job that runs the towers has a GPU to itself; small towers share what there is.
        memory_mb: main memory of such a job, beside what the images take.
    """

    gpu: ClassVar[bool] = False
    memory_mb: ClassVar[int] = 6000

    kind: str = Field(description="folder of cmer/backbones/, or entry point of another package")
    printed: str = Field(description="name of the vision tower as printed in the tables, e.g. ViT-B-16")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="in which the frozen towers compute on a CPU; a GPU uses bfloat16"
    )
    threads: Positive = Field(default=2, description="torch threads of the extraction: part of the result on a CPU")
    features: FeatureOptions = FeatureOptions()

    @classmethod
    def named(cls, name: str, kind: str) -> Self | None:
        """The settings that a short name on the command line means; None where it is another kind's."""
        return cls(kind=kind, printed=name) if name == kind else None

    def module(self) -> str:
        """The module that builds it: it counts for code digests."""
        return BACKBONES.module(self.kind)

    def without_weights(self) -> Self:
        """The same architecture with random weights, where others would have to be fetched."""
        return self


def parse_backbone(data: Any, key: str = "backbone") -> BackboneOptions:
    """The settings of a backbone as those of its `kind`.

    Raises:
        ValueError: the kind is missing or unknown, or a setting is wrong.
    """
    if isinstance(data, BackboneOptions):
        return data
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise ValueError(f"  - {key}: a mapping with the field 'kind' is required")
    try:
        options: type[BackboneOptions] = BACKBONE_OPTIONS.get(data["kind"])
    except ValueError as error:
        raise ValueError(f"  - {key}.kind: {error}") from None
    return validate_part(options, data, key)


Backbone = Annotated[SerializeAsAny[BackboneOptions], BeforeValidator(parse_backbone)]


def named_backbone(name: str) -> BackboneOptions:
    """The backbone that a short name on the command line means: a kind, or a model that a kind knows.

    Raises:
        ValueError: no kind knows it.
    """
    for kind in [name] if name in BACKBONE_OPTIONS.names() else BACKBONE_OPTIONS.names():
        found: BackboneOptions | None = BACKBONE_OPTIONS.get(kind).named(name, kind)
        if found is not None:
            return found
    raise ValueError(f"no backbone kind knows {name!r}; kinds are {', '.join(BACKBONE_OPTIONS.names())}")
