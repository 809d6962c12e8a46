"""Checkpoints: only the trained tensors, with a record of how they were made in the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.errors import UserError
from cmer.io import atomic
from cmer.provenance import seal, sealed_metadata, stored_record


class TrainingRecord(BaseModel):
    """What a checkpoint says of its training.

    Attributes:
        spec: settings of the run.
        features: digest of the features, or of the images of an online run.
        images_seen: number of pairs seen.
        best_epoch: epoch of the saved weights; 0 if nothing trains.
        val_mr: validation mR in percent of the best epoch; None if nothing trains.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    spec: RunSpec
    features: str
    trainable_parameters: NonNegativeInt
    train_images: NonNegativeInt
    images_seen: NonNegativeInt
    epochs: NonNegativeInt
    best_epoch: NonNegativeInt
    val_mr: Annotated[float, Field(ge=0, le=100)] | None


def save(path: Path | str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and record atomically; equal arguments give equal bytes."""
    with atomic(path) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        temporary.write_bytes(seal(serialise(whole, metadata=sealed_metadata(record))))


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a checkpoint; those that `cmer export` wrote in half precision become float32.

    Raises:
        UserError: the file is missing or damaged, or is no checkpoint.
    """
    record = stored_record(path)
    if "trainable_parameters" not in record or "embedding" in record:
        raise UserError(f"{path} is not a checkpoint; give one that `cmer train` wrote")
    validate(TrainingRecord, record, f"the record in {path}")
    half = torch.float16
    return {name: t.float() if t.dtype == half else t for name, t in load_file(path).items()}, record


@torch.no_grad()
def load_tensors(trained: dict[str, Tensor], values: dict[str, Tensor], source: Path | str) -> None:
    """Copy the saved `values` into the tensors of the same names.

    Raises:
        UserError: the tensors of `source` are not those of the method: by name, shape or type.
    """
    given, own = ({name: (list(t.shape), t.dtype) for name, t in each.items()} for each in (values, trained))
    other = sorted(name for name in given.keys() | own.keys() if given.get(name) != own.get(name))
    if other:
        name = other[0]
        raise UserError(
            f"{source} belongs to another method or version: {len(other)} tensors differ, first {name}: "
            f"{_described(given.get(name))}, not {_described(own.get(name))}; train again"
        )
    for name, tensor in trained.items():
        tensor.copy_(values[name])


def _described(tensor: tuple[list[int], torch.dtype] | None) -> str:
    return "absent" if tensor is None else f"{tensor[0]} of {str(tensor[1]).removeprefix('torch.')}"
