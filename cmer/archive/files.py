"""Files of an indexed folder: which there are, and what a new run has to do with each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from cmer.archive.store import Archive
from cmer.data.annotations import abbreviate, files_below, is_image
from cmer.data.rows import csv_lines
from cmer.errors import UserError
from cmer.io import sha256

STATE = ("file", "size", "mtime_ns", "sha256", "tiles")


@dataclass(frozen=True)
class Found:
    """A file in the folder: its path relative to it, its label, its size in bytes, and its time of change."""

    file: str
    label: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Known:
    """A file in the archive: as `Found`, with the SHA-256 of its content and whether all its tiles are there."""

    label: str | None
    size: int
    mtime_ns: int
    sha256: str
    complete: bool


@dataclass
class Plan:
    """What a run does.

    Attributes:
        embed: files to embed, new or changed or incomplete.
        remove: files whose rows are removed: they are gone, or have another content.
        gone: how many of them are gone.
        update: new values of columns, by file, for files whose content is the same.
        partial: those of `embed` of which some tiles are in the archive already.
        unchanged: number of files about which nothing is done but for `update`.
    """

    embed: list[Found] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    gone: int = 0
    update: dict[str, dict[str, Any]] = field(default_factory=dict)
    partial: list[str] = field(default_factory=list)
    unchanged: int = 0


def find(folder: Path, labels: dict[str, str] | None) -> list[Found]:
    """The images below a folder, by name.

    Args:
        folder: the folder; hidden files are left out.
        labels: file → label; without it, the label of a file is the folder that it lies in, if that is below `folder`.

    Raises:
        UserError: the folder cannot be listed, has no image, or lacks a file that has a label.
    """
    names = [name for name in files_below(folder) if is_image(name)]
    if not names:
        raise UserError(f"{folder} contains no image; check the folder (nothing was removed from the archive)")
    if labels is not None and (missing := sorted(set(labels) - set(names))):
        raise UserError(f"--labels names {abbreviate(missing)}, not among the images below {folder}; correct the list")
    found = []
    for name in names:
        path = folder / name
        if path.is_file():  # neither a pipe nor a link that leads nowhere, nor removed in the meantime
            status = path.stat()
            label = Path(name).parent.name if labels is None else labels.get(name, "")
            found.append(Found(name, label, status.st_size, status.st_mtime_ns))
    return found


def read_labels(path: Path) -> dict[str, str]:
    """Labels from a .csv with the columns file and label.

    Raises:
        UserError: the file is missing, not CSV, has other columns, or names a file twice.
    """
    lines = csv_lines(path, "check its double quotes", skipinitialspace=True)
    if sorted(header := [name.strip() for name in next(lines, (0, []))[1]]) != ["file", "label"]:
        raise UserError(f"{path}: the header is {','.join(header)[:80]!r}; expected file,label")
    labels: dict[str, str] = {}
    for number, cells in lines:
        if cells and len(cells) != 2:
            raise UserError(f"{path}: line {number} has {len(cells)} cells; expected a file and a label")
        row = dict(zip(header, cells, strict=False))
        if cells and labels.setdefault(row["file"], row["label"].strip()) != row["label"].strip():
            raise UserError(f"{path}: line {number} gives {row['file']} a second label; keep one")
    return labels


def known(archive: Archive) -> dict[str, Known | None]:
    """The files of an archive; None for one to embed afresh.

    That is one whose rows are of several contents, left by a killed run, or doubled by two machines that wrote at once.
    """
    rows = archive.read([*STATE, "label"]).read_all()
    grouped = rows.group_by(list(STATE)).aggregate([("label", "min"), ("label", "max"), ("label", "count")])
    found: dict[str, Known | None] = {}
    for row in _rows(grouped):
        label = row["label_min"] if row["label_min"] == row["label_max"] else None
        state = Known(label, row["size"], row["mtime_ns"], row["sha256"], row["label_count"] == row["tiles"])
        afresh = row["file"] in found or row["label_count"] > row["tiles"]
        found[row["file"]] = None if afresh else state
    return found


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def plan(found: Iterable[Found], before: dict[str, Known | None], sha256: Callable[[str], str]) -> Plan:
    """Compare the folder with the archive.

    A file of the same size and time of change has not changed. One of another time is compared by content.

    Args:
        found: files in the folder.
        before: files in the archive.
        sha256: gives the digest of a file's content now, or "" if it cannot be read.
    """
    result, left = Plan(), dict(before)
    for file in found:
        old = left.pop(file.file, None)
        if old is None:
            result.embed.append(file)
            result.remove += [file.file] if file.file in before else []
        elif _stamp(file) != _stamp(old) and sha256(file.file) != old.sha256:
            result.embed.append(file)
            result.remove.append(file.file)
        else:
            _keep(result, file, old)
    result.remove += left
    result.gone = len(left)
    return result


def _stamp(file: Found | Known) -> tuple[int, int]:
    return file.size, file.mtime_ns


def _keep(result: Plan, file: Found, old: Known) -> None:
    if (file.label, *_stamp(file)) != (old.label, *_stamp(old)):
        result.update[file.file] = {"label": file.label, "size": file.size, "mtime_ns": file.mtime_ns}
    if old.complete:
        result.unchanged += 1
    else:
        result.embed.append(file)
        result.partial.append(file.file)


def content_digest(folder: Path) -> Callable[[str], str]:
    """A function that gives the SHA-256 of a file below `folder`, or "" if it cannot be read."""

    def of(file: str) -> str:
        try:
            return sha256(folder / file)
        except OSError:
            return ""

    return of
