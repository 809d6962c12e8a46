"""Checkpoints: only the trained tensors, with a record of how they were made in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from cmer.errors import UserError
from cmer.io import atomic
from cmer.provenance import stored_record


def save(path: Path | str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and record atomically; equal arguments give equal bytes."""
    with atomic(path) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        temporary.write_bytes(serialise(whole, metadata={"record": json.dumps(record, sort_keys=True)}))


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a checkpoint.

    Raises:
        UserError: the file is missing or damaged, or has no record.
    """
    record = stored_record(path)
    if not record:
        raise UserError(f"{path} has no record of how it was made; train again with `cmer train`")
    return load_file(path), record
