"""Exact search: the vectors of a table in a memory-mapped file, which is read about five times as fast as the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cmer.archive.places import LOCK
from cmer.archive.settings import Vectors
from cmer.archive.store import Archive
from cmer.archive.trouble import StoreError
from cmer.errors import UserError
from cmer.io import atomic, locked

ROUNDING = 2.0**-9
"""Bound of the error of a score in float16, for unit vectors. Rounding of a vector, of the query and of their product
contribute at most 2⁻¹¹ each; the rest is for subnormal numbers and the sum in float32."""
RESCORED_AT_ONCE = 8192


@dataclass(frozen=True)
class Scan:
    """The vectors of one version of a table, rounded to float16, and the table's rows.

    Attributes:
        table: LanceDB's table of that version.
        vectors: [n, dim], mapped from the file.
        rows: LanceDB's row ids, uint64 [n].
    """

    table: Any
    vectors: npt.NDArray[np.float16]
    rows: npt.NDArray[np.uint64]

    @classmethod
    def open(cls, archive: Archive) -> Scan:
        """Map the vectors of the table's newest version, and write them first if they are of an older one.

        While `cmer index` is writing, the version that it began with is searched. Vectors of an archive in a bucket are
        written to the cache of this machine.

        Raises:
            UserError: the archive is empty, or is being written for the first time; or a file of vectors is damaged.
        """
        if not archive.count():
            raise UserError(f"{archive.place} is empty; run `cmer index` again, and read which images it skips")
        version = archive.table.version
        if not _are_there(archive, version):
            version = _cached(archive) if archive.place.shared else _written(archive)
        archive.table.checkout(version)
        rows = _loaded(_rows_file(archive, version))
        vectors = _loaded(_vectors_file(archive, version), (len(rows), archive.settings.dim))
        return cls(archive.table, vectors, rows)

    def nearest(self, query: Vectors, top: int, where: str | None = None) -> tuple[npt.NDArray[np.uint64], Vectors]:
        """Rows with the highest scores, exactly: candidates from the rounded vectors are scored in float32.

        Args:
            query: unit vector [dim].
            top: how many rows.
            where: condition (SQL) that they satisfy.

        Returns:
            row ids and scores [at most top], the best first; equal scores are in the order of the table.
        """
        scores = (torch.from_numpy(self.vectors) @ torch.from_numpy(query).half()).float().numpy()
        if where is not None:
            scores[~self._satisfying(where)] = -np.inf
        top = min(top, int(np.isfinite(scores).sum()))
        if top == 0:
            return self.rows[:0], np.empty(0, np.float32)
        least = np.partition(scores, len(scores) - top)[len(scores) - top]
        candidates = np.flatnonzero(scores >= least - 2 * ROUNDING)
        exact = self._exact(candidates) @ query
        order = np.argsort(-exact, kind="stable")[:top]
        return self.rows[candidates[order]], exact[order]

    def _satisfying(self, where: str) -> npt.NDArray[np.bool_]:
        found = self.table.search().where(where).select(["id"]).with_row_id(True).to_arrow()["_rowid"].to_numpy()
        return np.isin(self.rows, found)

    def _exact(self, positions: npt.NDArray[np.int64]) -> Vectors:
        """Vectors of the table in float32 [n, dim]."""
        parts = [positions[start : start + RESCORED_AT_ONCE] for start in range(0, len(positions), RESCORED_AT_ONCE)]
        return np.concatenate([_matrix(take(self.table, self.rows[part], ["vector"])["vector"]) for part in parts])


def _loaded(path: Path, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    """The array in a file, mapped; raises `StoreError` if the file is damaged or has another shape than this."""
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="c")  # torch warns about arrays that are read-only
        if shape and found.shape != shape:
            raise ValueError
        return found
    except (ValueError, EOFError):
        raise StoreError(f"{path} is damaged; remove it and rerun the same command, which writes it again") from None


def take(table: Any, rows: npt.NDArray[np.uint64], columns: list[str]) -> Any:
    """Columns of rows of a table, in the order of their row ids in `rows`."""
    found = table.take_row_ids(rows.tolist()).select(columns).with_row_id().to_arrow()
    at = np.argsort(found["_rowid"].to_numpy())
    return found.take(at[np.searchsorted(found["_rowid"].to_numpy()[at], rows)])


def _cached(archive: Archive) -> int:
    """The version of the open table, whose vectors are in the cache of this machine now."""
    with locked(archive.cache / LOCK):
        write_vectors(archive)
    return int(archive.table.version)


def _written(archive: Archive) -> int:
    """The version whose vectors can be searched: the newest, or the last complete one while another process writes."""
    versions = [int(path.suffixes[0][1:]) for path in archive.cache.glob("vectors.*.npy")]
    try:
        with archive.place.writing():
            archive.table.checkout_latest()
            write_vectors(archive)
            return int(archive.table.version)
    except StoreError:
        raise
    except UserError:
        if not versions:
            raise
        return max(versions)


def write_vectors(archive: Archive) -> None:
    """Write the vectors and row ids of the table's version, unless they are there; remove those of other versions."""
    count, version = archive.count(), archive.table.version
    if not count or _are_there(archive, version):
        return
    old = {*archive.cache.glob("vectors.*.npy"), *archive.cache.glob("rows.*.npy")}
    rows = np.empty(count, np.uint64)
    with atomic(_vectors_file(archive, version)) as path, path.open("wb") as vectors:
        layout = {"descr": "<f2", "fortran_order": False, "shape": (count, archive.settings.dim)}
        np.lib.format.write_array_header_1_0(vectors, layout)  # not a map: on a full disk, it kills the process
        start = 0
        for batch in archive.read(["vector"], row_ids=True):
            end = start + batch.num_rows
            vectors.write(_matrix(batch["vector"]).astype("<f2").tobytes())
            rows[start:end] = batch["_rowid"].to_numpy()
            start = end
        with atomic(_rows_file(archive, version)) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
    for each in old - {_vectors_file(archive, version), _rows_file(archive, version)}:
        each.unlink(missing_ok=True)


def _matrix(column: Any) -> Vectors:
    whole = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False)).reshape(len(whole), -1)


def _are_there(archive: Archive, version: int) -> bool:
    return _vectors_file(archive, version).exists() and _rows_file(archive, version).exists()


def _vectors_file(archive: Archive, version: int) -> Path:
    return archive.cache / f"vectors.{version}.npy"


def _rows_file(archive: Archive, version: int) -> Path:
    return archive.cache / f"rows.{version}.npy"
