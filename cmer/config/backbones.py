"""Settings that all frozen backbones have in common; those of one kind are in its folder of `cmer/backbones/`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationError

from cmer.config.base import M, Model, Precision, Text, Threads, validate_part
from cmer.config.plain import shown
from cmer.registry import BACKBONE_OPTIONS, BACKBONES, Registry


def _ascending(blocks: list[int] | None) -> list[int] | None:
    if blocks is not None and blocks != sorted(set(blocks)):
        raise ValueError(f"{blocks} must be block numbers, ascending, each once")
    return blocks


def _integer(value: Any) -> Any:
    if type(value) is not int:  # true equals 1
        raise ValueError(f"Input should be an integer (given: {shown(value)})")
    return value


FeatureDtype = Literal["float32", "bfloat16", "int8"]
Runtime = Literal["torch", "openvino"]
Blocks = Annotated[list[Annotated[int, Field(ge=0, le=1000)]] | None, AfterValidator(_ascending)]


class FeatureOptions(Model):
    """Which outputs of the frozen towers are stored, and how."""

    blocks: Blocks = Field(default=None, description="image blocks to store; null stores all")
    text_blocks: Blocks = Field(default=None, description="text blocks to store; null stores all")
    views: Annotated[Literal[1, 4, 8], BeforeValidator(_integer)] = Field(
        default=1, description="dihedral views of each image: 1, the 4 quarter turns, or all 8"
    )
    dtype: FeatureDtype = Field(
        default="float32",
        description="type of the stored block outputs; int8 has a scale per token; pooled embeddings are float32",
    )


class BackboneOptions(Model):
    """Settings that all frozen backbones have in common.

    Class attributes:
        gpu: whether a job that runs the towers needs a GPU of its own; jobs with small towers share one, if there is
            one.
        memory_mb: main memory of such a job in MB, in addition to that of the images.
    """

    gpu: ClassVar[bool] = False
    memory_mb: ClassVar[int] = 6000

    kind: str = Field(description="folder of cmer/backbones/, or entry point of another package")
    printed: Text = Field(description="name of the vision tower as printed in the tables, e.g. ViT-B-16")
    precision: Precision = Field(default="float32", description="precision of the frozen towers, on every device")
    threads: Threads = Field(default=2, description="threads of the extraction; on a CPU they affect the result")
    runtime: Runtime = Field(
        default="torch",
        description="what runs the towers in the extraction: torch, or OpenVINO on the CPU (extra `openvino`)",
    )
    features: FeatureOptions = FeatureOptions()

    @classmethod
    def named(cls, name: str, kind: str) -> Self | None:
        """The settings for a short name on the command line; None if the name belongs to another kind."""
        return cls(kind=kind, printed=name) if name == kind else None

    def places(self) -> list[str]:
        """Files of the user that the towers are read from."""
        return []

    def module(self) -> str:
        """The module that builds this backbone; code digests include it."""
        return BACKBONES.module(self.kind)

    def without_weights(self) -> Self:
        """The same architecture with random weights if pretrained ones would have to be fetched."""
        return self


def parse_backbone(data: Any, key: str = "backbone") -> BackboneOptions:
    """Parse the settings of a backbone with the model of its `kind`.

    Raises:
        ValueError: the kind is missing or unknown, or a setting is invalid.
    """
    return data if isinstance(data, BackboneOptions) else parse_kind(BACKBONE_OPTIONS, data, key)


def parse_kind(registry: Registry[type[M]], data: Any, key: str) -> M:
    """Parse settings with the model that the registry has for their `kind`.

    Raises:
        ValueError: the kind is missing or unknown, or a setting is invalid.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise ValueError(f"  - {key}: a mapping with the field 'kind' is required")
    try:
        options = registry.get(data["kind"])
    except ValueError as error:
        raise ValueError(f"  - {key}.kind: {error}") from None
    return validate_part(options, data, key)


Backbone = Annotated[SerializeAsAny[BackboneOptions], BeforeValidator(parse_backbone)]


def named_backbone(name: str) -> BackboneOptions:
    """The backbone for a short name on the command line: a kind, or a model that a kind provides.

    Raises:
        ValueError: no kind provides it.
    """
    for kind in [name] if name in BACKBONE_OPTIONS.names() else BACKBONE_OPTIONS.names():
        with suppress(ValidationError):  # no model has such a name
            found: BackboneOptions | None = BACKBONE_OPTIONS.get(kind).named(name, kind)
            if found is not None:
                return found
    raise ValueError(f"no backbone kind provides {name!r}; kinds are {', '.join(BACKBONE_OPTIONS.names())}")
