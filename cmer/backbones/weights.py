"""Loading of weights from files, with errors that say what a file is."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cmer.errors import UserError
from cmer.io import regular_size

PICKLE = (
    "it contains Python classes, which could run any code, or is damaged; save the model's state_dict() with "
    "torch.save, or as safetensors"
)
KINDS = {
    "zip": "it is a zip archive without tensors by name, as torch.save writes them, or damaged; get it again",
    "safetensors": "it is a damaged safetensors file, or its name does not end in .safetensors",
    "page": "it is a web page; download the file itself",
    "text": "it is a text file, perhaps a pointer of Git LFS; download the file itself",
    "pickle": PICKLE,
    "data": "it is not in a format of weights, or is damaged; get it again",
}
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts save the state dict beside their other state."""
PARALLEL = "module."
"""Prefix of every name in a model that was trained in several processes."""
SHOWN = 3
"""Number of tensors that an error names."""


@contextmanager
def reading_weights(what: str, local: bool = True) -> Iterator[None]:
    """Load weights in the block; any failure becomes an error that says what the file is.

    Args:
        what: path of the file, or a name of weights that are fetched.
        local: whether it is a path.

    Raises:
        UserError: the file is missing, empty or not a regular file, or the block fails.
    """
    if local and not regular_size(what):
        raise UserError(f"cannot load weights {what}: the file is empty; get it again")
    try:
        yield
    except Exception as error:  # a file may be anything, and loaders raise nearly anything
        raise UserError(f"cannot load weights {what}: {_reason(Path(what) if local else None, error)}") from error


def read_state(path: str) -> dict[str, Tensor]:
    """Tensors by name from a weight file in any of the published layouts.

    These are safetensors, and files of torch.save with a state dict, alone or beside other state, with or without the
    prefix of a model trained in several processes.

    Raises:
        UserError: the file is missing or holds no tensors by name.
    """
    with reading_weights(path):
        state: Any = (
            load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, weights_only=True, map_location="cpu")
        )
        while nested := next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), None):
            state = nested
        if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError("it has no tensors by name; give the file of a model's state_dict()")
        if all(name.startswith(PARALLEL) for name in state):
            state = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
        return dict(state)


def _reason(path: Path | None, error: Exception) -> str:
    if names := _names(str(error)):
        return f"they are another model's ({names}); correct `model` or the file"
    kind = _kind(path) if path else ""
    # Torch's own message advises to run what is in a pickle.
    if kind in ("zip", "pickle", "") and isinstance(error, pickle.UnpicklingError):
        return PICKLE
    return KINDS.get(kind, str(error))


def _names(message: str) -> str:
    """What `load_state_dict` found missing, unexpected, or of another shape; empty for other errors."""
    found = []
    for what in ("Missing", "Unexpected"):
        if listed := re.search(rf"{what} key\(s\) in state_dict: (.*?)\. ?(?:\n|$)", message):
            found.append(_first(f"{what.lower()}", re.findall(r'"(.*?)"', listed[1])))
    if sizes := re.findall(r"size mismatch for (\S+?): copying", message):
        found.append(_first("another shape of", sizes))
    return "; ".join(found)


def _first(what: str, names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{what} {', '.join(names[:SHOWN])}{rest}"


def _kind(path: Path) -> str:
    """The format of a file, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    if zipfile.is_zipfile(path) or head.startswith(b"PK"):
        return "zip"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.I):
        return "page"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", head):
        return "text"
    return "pickle" if head.startswith(b"\x80") else "data"
