"""A checkpoint of half the size, which `cmer.load` and `cmer embed` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cmer.errors import UserError
from cmer.inference.export.probe import embedded, require_close
from cmer.inference.model import load
from cmer.inference.source import FROZEN
from cmer.io import atomic
from cmer.training.checkpoint import load as load_checkpoint
from cmer.training.checkpoint import save

SUFFIX = ".safetensors"
LARGEST_DIFFERENCE = 5e-3
"""Of a component of a unit embedding; chosen here."""


def write(run: str, out: Path) -> dict[str, Any]:
    """Write the trained matrices in float16, and vectors, scalars and running statistics as they are.

    The record is that of the checkpoint, with a digest of the frozen weights, which `cmer.load` compares.

    Raises:
        UserError: `run` is no checkpoint, a value is too large for float16, or the embeddings change.
    """
    exact, (tensors, record) = load(Path(run)), load_checkpoint(run)
    halved = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    beyond = sorted(name for name, tensor in halved.items() if not torch.isfinite(tensor).all())
    if beyond:
        raise UserError(f"{run} cannot be halved: {beyond[0]} has values that float16 does not hold")
    with atomic(out) as temporary:
        save(temporary, halved, record | {FROZEN: exact.source.frozen})
        difference = require_close(embedded(load(temporary)), embedded(exact), LARGEST_DIFFERENCE, "the half precision")
        size = temporary.stat().st_size
    return {"bytes": size, "largest_difference": difference}
