"""Growing arrays of an extraction, which survive an interruption."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmer.errors import UserError
from cmer.features.quantise import DTYPES
from cmer.features.store import COMMAND, Array
from cmer.io import read_sealed, sha256, write_sealed


class Sink:
    """Growing arrays in a folder, with checkpoints of progress written by `mark`.

    Opening the folder truncates the arrays to the last mark. If bytes before the last mark are missing or have changed,
    the extraction starts from the beginning.

    Args:
        folder: folder of the arrays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._progress = folder, folder / "progress.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] = {"images": 0, "texts": 0, "arrays": {}}
        if self._progress.is_file():
            try:
                saved = read_sealed(self._progress, COMMAND)
                self._compare(saved["arrays"])
                self.state = saved
            except (UserError, OSError) as error:
                print(f"note: {error}; the extraction starts from the beginning", file=sys.stderr)
        for file in folder.glob("*.bin"):
            with file.open("r+b") as stale:
                stale.truncate(self._size(file.stem))

    def _size(self, name: str) -> int:
        """Bytes of the array up to the last mark; 0 if there is none."""
        return sum(size for size, _ in self.state["arrays"].get(name, {"parts": []})["parts"])

    def bytes(self) -> int:
        """Bytes of all arrays up to the last mark."""
        return sum(self._size(name) for name in self.state["arrays"])

    def _compare(self, arrays: dict[str, Any]) -> None:
        for name, entry in arrays.items():
            with (self.folder / f"{name}.bin").open("rb") as file:
                for size, checksum in entry["parts"]:
                    if hashlib.sha256(file.read(size)).hexdigest() != checksum:
                        raise UserError(f"{file.name} is incomplete or damaged")

    def append(self, name: str, rows: Tensor) -> None:
        """Append `rows` [n, ...] to the array.

        Raises:
            UserError: the rows cannot be written.
        """
        dtype = next(key for key, value in DTYPES.items() if value == rows.dtype)
        new = {"shape": [0, *rows.shape[1:]], "dtype": dtype, "parts": []}
        entry = self.state["arrays"].setdefault(name, new)
        data = rows.contiguous().view(-1).view(torch.uint8).cpu().numpy()
        try:
            with (self.folder / f"{name}.bin").open("ab") as file:
                file.write(data.data)
                os.fsync(file.fileno())
        except OSError as error:
            free = shutil.disk_usage(self.folder).free / 2**30
            raise UserError(
                f"cannot write features to {self.folder}: {error.strerror} ({free:.1f} GiB free); "
                "free space and rerun the same command to resume"
            ) from error
        entry["shape"][0] += len(rows)
        entry["parts"].append([data.nbytes, hashlib.sha256(data.data).hexdigest()])

    def extend(self, arrays: dict[str, Tensor]) -> None:
        """Append the rows of several arrays, by name; see `append`."""
        for name, rows in arrays.items():
            self.append(name, rows)

    def mark(self, kind: str, done: int) -> None:
        """Record that `done` items of `kind` have been written."""
        self.state[kind] = done
        write_sealed(self._progress, self.state, COMMAND)

    def describe(self) -> dict[str, Array]:
        """All arrays with their content hashes."""
        return {
            name: Array(shape=entry["shape"], dtype=entry["dtype"], sha256=sha256(self.folder / f"{name}.bin"))
            for name, entry in sorted(self.state["arrays"].items())
        }
