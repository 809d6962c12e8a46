"""Selection of the training process that reports why a training ended. Imports no torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cmer.io import write_json


def is_first_to_fail(reason: str) -> bool:
    """Whether this process is the first of the training to report its error, which torchrun repeats at the end."""
    told = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if told is None:
        return True
    try:
        (Path(told).parents[1] / "reason").touch(exist_ok=False)  # folder shared by all processes
    except FileExistsError:
        return False
    write_json(Path(told), {"message": {"message": reason, "extraInfo": {"timestamp": int(time.time())}}})
    return True
