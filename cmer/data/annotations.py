"""What a dataset says of its images: captions, splits and labels, in one of several layouts that end in one form.

`dataset*.json` beside an image folder is how remote-sensing caption sets are published: RSICD (Lu et al., TGRS 2018:
10,921 images, 224 px, 31 classes), RSITMD (Yuan et al., TGRS 2022: 4,743 images, 256 px, 33 classes), UCM-Captions (Qu
et al., CITS 2016: 2,100 images, 256 px, 21 classes) and Sydney-Captions (same: 613 images, 500 px) differ in names
only: five captions an image in all four. Images of one's own may have their captions in a .csv or .jsonl, or lie in
class folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cmer.config.base import validate
from cmer.config.datasets import ColumnLabels
from cmer.data.layout import Layout
from cmer.data.rows import csv_rows, jsonl_rows
from cmer.errors import UserError
from cmer.io import read_json

SUFFIXES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""Of the files that are images in class folders, in small letters."""

CONTROL = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
"""Control characters, and halves of characters, which JSON can hold and no file can; as in a regular expression."""


class Sentence(BaseModel):
    """One caption; keys beside `raw` (tokens, ids) do not matter."""

    raw: str


class Entry(BaseModel):
    """One image; further keys are kept for the label rule `column`. `split` is "" in annotations that name none."""

    model_config = ConfigDict(extra="allow")

    filename: str
    split: Literal["train", "val", "test", ""] = ""
    sentences: list[Sentence]

    @cached_property
    def captions(self) -> list[str]:
        """The captions with runs of white space and control characters made one space: no tower tells them apart."""
        return [plain(sentence.raw) for sentence in self.sentences]


def plain(text: str) -> str:
    """`text` on one line: white space and what is in `CONTROL` become single spaces, none at the ends."""
    return re.sub(rf"[\s{CONTROL}]+", " ", text).strip()


def read_entries(layout: Layout) -> list[Entry]:
    """All images of a dataset, in the order of its annotations; of class folders, by name.

    Class folders have no captions of their own: these entries have no sentences.

    Raises:
        UserError: as `read_annotations`; or some images name a split and others do not; or a class folder holds a
            file whose name is not UTF-8.
    """
    path = layout.annotations
    if layout.caption is not None:
        entries = [Entry(filename=name, sentences=[]) for name in files_below(path) if is_image(name)]
    elif path.suffix == ".json":
        entries = _published(path)
    else:
        rows = csv_rows(path) if path.suffix == ".csv" else jsonl_rows(path)
        column = layout.labels.column if isinstance(layout.labels, ColumnLabels) else "label"
        entries = _images_of_rows(path, rows, column)
    return _checked(path, entries, may_lack_splits=layout.split is not None)


def read_annotations(path: Path) -> list[Entry]:
    """All images of an annotation file in the published layout, in its order; every one has a split.

    Raises:
        UserError: the file is missing or not in the layout (the entry and key are named), names an image twice, names
            a path outside the image folder, or has no train or no test image.
    """
    return _checked(path, _published(path), may_lack_splits=False)


def files_below(folder: Path) -> list[str]:
    """Names of all files below `folder`, relative to it, sorted. Links to folders are followed.

    Raises:
        UserError: a folder is missing, cannot be listed or is met twice, or a name is not UTF-8.
    """

    def stop(error: OSError) -> None:
        raise UserError(
            f"{error.filename} cannot be listed ({error.strerror}); check the dataset's `root` and `images`"
        )

    names, met = [], set()
    for place, _, files in os.walk(folder, onerror=stop, followlinks=True):
        if (real := os.path.realpath(place)) in met:
            raise UserError(f"{place} links to {real}, which is read already; remove the link")
        met.add(real)
        names += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
    foreign = [ascii(name) for name in names if re.search("[\ud800-\udfff]", name)]  # how Python shows other bytes
    if foreign:
        raise UserError(f"{folder}: {some(foreign)}: names that are not UTF-8; rename these files")
    return sorted(names)


def is_image(name: str) -> bool:
    """Whether a file in class folders is an image: by its suffix, and not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def some(names: list[str], most: int = 10) -> str:
    """Up to `most` of the names, and how many more there are."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


# --- layouts ----------------------------------------------------------------------------------------


def _published(path: Path) -> list[Entry]:
    data = read_json(path)
    items = data.get("images") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise UserError(f"{path} has no list `images`; expected images[].filename, .split and .sentences[].raw")
    return [_entry(path, number, item) for number, item in enumerate(items)]


def _entry(path: Path, number: int, item: Any) -> Entry:
    name = item.get("filename", "no filename") if isinstance(item, dict) else "not an object"
    shown = name[:200] if isinstance(name, str) else "no name"
    return validate(Entry, item, f"{path}: images[{number}] ({shown})")


def _entry_of_row(where: str, row: dict[str, Any]) -> Entry:
    captions = [row["caption"]] if "caption" in row else row["captions"]
    if not isinstance(captions, list):
        raise UserError(f"{where}: `captions` is not a list; name a single one `caption`")
    known = {
        "filename": row["file"] if "file" in row else row["filename"],
        "sentences": [{"raw": text} for text in captions],
    }
    return validate(Entry, row | known, where)


def _images_of_rows(path: Path, rows: Iterable[tuple[str, dict[str, Any]]], label: str) -> list[Entry]:
    """One entry an image, with the captions of all its rows; what rows say of an image itself must agree."""
    images: dict[str, Entry] = {}
    for where, row in rows:
        entry = _entry_of_row(where, row)
        known = images.setdefault(entry.filename, entry)
        if known is not entry:
            for key, before, now in (
                ("split", known.split, entry.split),
                (label, (known.model_extra or {}).get(label), (entry.model_extra or {}).get(label)),
            ):
                if before != now:
                    raise UserError(f"{where} gives {entry.filename} the {key} {now!r}, an earlier line {before!r}")
            known.sentences += entry.sentences
    return list(images.values())


# --- what holds of all layouts ----------------------------------------------------------------------


def _checked(path: Path, entries: list[Entry], may_lack_splits: bool) -> list[Entry]:
    if not entries:
        raise UserError(f"{path} holds no image")
    _check_names(path, [entry.filename for entry in entries])
    without = [entry.filename for entry in entries if not entry.split]
    if may_lack_splits and len(without) == len(entries):
        return entries
    if without:
        raise UserError(f"{path} names no split of {some(without)}; give every image one of train, val and test")
    for split in ("train", "test"):
        if all(entry.split != split for entry in entries):
            raise UserError(f"{path} has no image whose split is {split!r}")
    return entries


def _check_names(path: Path, names: list[str]) -> None:
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise UserError(f"{path}: {some(outside)} would lie outside the image folder; give names inside it")
    odd = [ascii(name) for name in names if not PurePosixPath(name).name or re.search(rf"[{CONTROL}\\]", name)]
    if odd:
        raise UserError(
            f"{path}: {some(odd)}: a file's name is not empty and holds no control character and no backslash; write / "
            "between folders"
        )
    seen: set[PurePosixPath] = set()
    twice = [name for name in names if (file := PurePosixPath(name)) in seen or seen.add(file)]  # type: ignore[func-returns-value]
    if twice:
        raise UserError(f"{path}: {some(twice)} appears more than once; every image has one entry, in one split")
