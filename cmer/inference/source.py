"""What a model is built from: a checkpoint or a backbone, without the dataset of its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from cmer.backbones.base import Backbone
from cmer.config.backbones import BackboneOptions, Runtime
from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.errors import UserError
from cmer.features.towers import towers
from cmer.features.weights import weights_digest
from cmer.io import cores, digest, sha256
from cmer.methods.base import Method
from cmer.training.assembly import built, towers_of
from cmer.training.checkpoint import load as load_checkpoint
from cmer.training.checkpoint import load_tensors

FROZEN = "frozen_weights"
"""Entry of an exported checkpoint's record: digest of the frozen weights that its tensors belong to."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from, built and with its trained weights.

    Attributes:
        spec: spec of the run; of method zero_shot for a bare backbone.
        method: the method on the device.
        backbone: the frozen backbone, perhaps adapted in place by the method; None for a method with its own towers.
        towers: the backbone as extraction runs it.
        name: name of the run or of the backbone.
        frozen: digest of the frozen weights.
        digest: changes with the spec, the trained tensors or the frozen weights.
    """

    spec: RunSpec
    method: Method
    backbone: Backbone | None
    towers: Backbone | None
    name: str
    frozen: str
    digest: str


def of_checkpoint(path: Path, runtime: Runtime | None = None) -> Source:
    """The run of a checkpoint; see `cmer.load`."""
    tensors, record = load_checkpoint(path)
    spec = validate(RunSpec, record["spec"], str(path))
    _require_embeddings(spec)
    if runtime is not None and spec.options.image_input != "features":
        raise UserError(f"run {spec.run} runs towers that it adapts or has of its own, in torch; omit the runtime")
    backbone = towers_of(spec)
    frozen = frozen_weights(spec, backbone)
    if record.get(FROZEN, frozen) != frozen:
        raise UserError(f"{path} was exported from other frozen weights than {spec.run} has here; export it again")
    method = built(spec, backbone, _Captions(spec.run))
    load_tensors(method.trained(), tensors, path)
    made = digest([sha256(path), frozen])
    return Source(spec, method, backbone, _running(spec, backbone, runtime), spec.run, frozen, made)


def of_backbone(options: BackboneOptions, runtime: Runtime | None = None) -> Source:
    """The embeddings of a backbone as they are, which is the method zero_shot; see `cmer.load`."""
    data: dict[str, Any] = {"run": "zero_shot", "dataset": "none", "seed": 0, "backbone": options}
    data |= {"method": "zero_shot", "training": {"precision": options.precision, "inputs": "online"}}
    spec = validate(RunSpec, data, options.printed)
    backbone = towers_of(spec)
    frozen = frozen_weights(spec, backbone)
    made = digest([options.model_dump(exclude={"printed"}), frozen])
    method = built(spec, backbone, ())
    return Source(spec, method, backbone, _running(spec, backbone, runtime), options.printed, frozen, made)


def _running(spec: RunSpec, backbone: Backbone | None, runtime: Runtime | None) -> Backbone | None:
    """The backbone as extraction runs it, or in another runtime on all cores."""
    if backbone is None or spec.backbone is None:
        return None
    other = {} if runtime is None else {"runtime": runtime, "threads": cores()}
    return towers(backbone, spec.backbone.model_copy(update=other))


def frozen_weights(spec: RunSpec, backbone: Backbone | None) -> str:
    """Digest of the frozen weights, before a method adapts the towers in place."""
    return digest([sha256(file) for file in spec.weight_files()]) if backbone is None else weights_digest(backbone)


def _require_embeddings(spec: RunSpec) -> None:
    if spec.options.rich is not None:
        raise UserError(f"run {spec.run} finds images by texts about them and has no encoder of images")
    if spec.options.scoring != "embedding":
        raise UserError(
            f"run {spec.run} has no embeddings: its method, {spec.method}, scores every pair of an image and a text "
            "together; use a method that embeds them apart"
        )


class _Captions(Sequence[str]):
    """The train captions of a checkpoint, which has none; a method that reads them ends with an error."""

    def __init__(self, run: str) -> None:
        self.run = run

    def __len__(self) -> int:
        raise self._error()

    def __iter__(self) -> Iterator[str]:
        raise self._error()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        raise self._error()

    def _error(self) -> UserError:
        return UserError(
            f"run {self.run} has its words from the captions that it was trained on, which its checkpoint does not "
            "contain; use a method whose text tower has a tokenizer of its own"
        )
