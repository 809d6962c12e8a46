"""Export of trained runs, one module per format with a function `write`."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from cmer.errors import UserError


class Format(StrEnum):
    """A format, and the module of this package that writes it to a file that ends in its `SUFFIX`."""

    onnx = "onnx"
    open_clip = "open_clip"
    safetensors = "safetensors"


def export(run: str, to: Format, out: Path) -> dict[str, Any]:
    """Write a run in a format, and compare what was written with the run.

    Args:
        run: what `cmer.load` takes.
        to: the format.
        out: file to write.

    Returns:
        the number of bytes and the largest difference of an embedding's component, for the user.

    Raises:
        UserError: see `cmer.load`; the name of the file is not of the format, the format has no place for what the run
            trained, a library is not installed, or what was written differs from the run.
    """
    module = import_module(f"{__name__}.{to}")
    if out.suffix != module.SUFFIX:
        raise UserError(f"--out {out} must end in {module.SUFFIX}")
    found: dict[str, Any] = module.write(run, out)
    return found
