"""Which of several training processes says why the training ended. Imports no torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cmer.io import write_json


def is_first_to_fail(reason: str) -> bool:
    """Whether no other process of the training has said why it ends. torchrun is told, and repeats it at the end."""
    told = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if told is None:
        return True
    try:
        (Path(told).parents[1] / "reason").touch(exist_ok=False)  # the folder of all processes
    except FileExistsError:
        return False
    write_json(Path(told), {"message": {"message": reason, "extraInfo": {"timestamp": int(time.time())}}})
    return True
