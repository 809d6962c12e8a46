"""Checkpoints: the trained tensors alone, with the record of their making in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from cmer.errors import UserError
from cmer.io import atomic


def save(path: Path | str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and record atomically; the same arguments give the same bytes."""
    with atomic(path) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        temporary.write_bytes(serialise(whole, metadata={"record": json.dumps(record, sort_keys=True)}))


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a checkpoint.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["record"])
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist") from None
    except (SafetensorError, TypeError, KeyError) as error:
        raise UserError(f"checkpoint {path} is damaged ({error}); remove it and train again") from None
