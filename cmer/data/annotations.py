"""Annotations of a dataset (captions, splits and labels): readers that convert several layouts into one form.

Remote-sensing caption datasets are published as `dataset*.json` beside an image folder: RSICD (Lu et al., TGRS 2018:
10,921 images, 224 px, 31 classes), RSITMD (Yuan et al., TGRS 2022: 4,743 images, 256 px, 33 classes), UCM-Captions (Qu
et al., CITS 2016: 2,100 images, 256 px, 21 classes) and Sydney-Captions (same: 613 images, 500 px). They differ only in
names; all four have five captions per image. A user's own dataset can have its captions in a .csv or .jsonl file, or
its images in class folders.
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
"""Suffixes of files that count as images in class folders, in lower case."""

CONTROL = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
"""Regular expression for control characters, and for lone surrogates, which JSON can contain but UTF-8 files cannot."""


class Sentence(BaseModel):
    """One caption; keys other than `raw` (tokens, ids) are ignored."""

    raw: str


class Entry(BaseModel):
    """One image. Extra keys are kept for the label rule `column`; `split` is "" if the annotations name no split."""

    model_config = ConfigDict(extra="allow")

    filename: str
    split: Literal["train", "val", "test", ""] = ""
    sentences: list[Sentence]

    @cached_property
    def captions(self) -> list[str]:
        """The captions with normalised white space, which no tower distinguishes from the original."""
        return [normalise_whitespace(sentence.raw) for sentence in self.sentences]


def normalise_whitespace(text: str) -> str:
    """`text` with every run of white space and `CONTROL` characters replaced by one space, and stripped."""
    return re.sub(rf"[\s{CONTROL}]+", " ", text).strip()


def read_entries(layout: Layout) -> list[Entry]:
    """All images of a dataset, in the order of its annotations, or sorted by name for class folders.

    Class folders have no captions of their own, so their entries have no sentences.

    Raises:
        UserError: as for `read_annotations`; or only some of the images name a split; or a class folder contains a
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
    """All images of an annotation file in the published layout, in the order of the file; each has a split.

    Raises:
        UserError: the file is missing or not in the published layout (the message names the entry and key), lists an
            image twice, names a path outside the image folder, or has no train or no test image.
    """
    return _checked(path, _published(path), may_lack_splits=False)


def files_below(folder: Path) -> list[str]:
    """Sorted paths of all files below `folder`, relative to it. Links to folders are followed.

    Raises:
        UserError: a folder is missing, cannot be listed or is visited twice, or a name is not UTF-8.
    """

    def stop(error: OSError) -> None:
        raise UserError(
            f"{error.filename} cannot be listed ({error.strerror}); check the dataset's `root` and `images`"
        )

    names, met = [], set()
    for place, _, files in os.walk(folder, onerror=stop, followlinks=True):
        if (real := os.path.realpath(place)) in met:
            raise UserError(f"{place} links to {real}, which has already been read; remove the link")
        met.add(real)
        names += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
    foreign = [ascii(name) for name in names if re.search("[\ud800-\udfff]", name)]  # undecodable bytes
    if foreign:
        raise UserError(f"{folder}: {abbreviate(foreign)}: names that are not UTF-8; rename these files")
    return sorted(names)


def is_image(name: str) -> bool:
    """Whether a file in class folders counts as an image: it has an image suffix and is not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def abbreviate(names: list[str], limit: int = 10) -> str:
    """The first `limit` names, and the number of further ones: "a.jpg, b.jpg and 3 more"."""
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


# --- layouts ----------------------------------------------------------------------------------------


def _published(path: Path) -> list[Entry]:
    data = read_json(path, halves=True)  # cleaned as other control characters are
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
        raise UserError(f"{where}: `captions` is not a list; use the key `caption` for a single one")
    known = {
        "filename": row["file"] if "file" in row else row["filename"],
        "sentences": [{"raw": text} for text in captions],
    }
    return validate(Entry, row | known, where)


def _images_of_rows(path: Path, rows: Iterable[tuple[str, dict[str, Any]]], label: str) -> list[Entry]:
    """One entry per image, with the captions of all its rows; splits and labels in its rows must agree."""
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
                    raise UserError(
                        f"{where} sets the {key} of {entry.filename} to {now!r}, an earlier line to {before!r}"
                    )
            known.sentences += entry.sentences
    return list(images.values())


# --- checks for all layouts -------------------------------------------------------------------------


def _checked(path: Path, entries: list[Entry], may_lack_splits: bool) -> list[Entry]:
    if not entries:
        raise UserError(f"{path} contains no image")
    _check_names(path, [entry.filename for entry in entries])
    without = [entry.filename for entry in entries if not entry.split]
    if may_lack_splits and len(without) == len(entries):
        return entries
    if without:
        raise UserError(f"{path} names no split for {abbreviate(without)}; assign train, val or test to every image")
    for split in ("train", "test"):
        if all(entry.split != split for entry in entries):
            raise UserError(f"{path} has no image whose split is {split!r}")
    return entries


def _check_names(path: Path, names: list[str]) -> None:
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise UserError(f"{path}: {abbreviate(outside)} is outside the image folder; use names inside it")
    odd = [ascii(name) for name in names if not PurePosixPath(name).name or re.search(rf"[{CONTROL}\\]", name)]
    if odd:
        raise UserError(
            f"{path}: {abbreviate(odd)}: a file name must not be empty or contain a control character or backslash; "
            "write / between folders"
        )
    seen: set[PurePosixPath] = set()
    twice = [name for name in names if (file := PurePosixPath(name)) in seen or seen.add(file)]  # type: ignore[func-returns-value]
    if twice:
        raise UserError(f"{path}: {abbreviate(twice)} appears more than once; every image has one entry, in one split")
