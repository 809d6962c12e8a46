"""The layout in which remote-sensing caption sets are published: `dataset*.json` beside an image folder.

RSICD (Lu et al., TGRS 2018: 10,921 images, 224 px, 31 classes), RSITMD (Yuan et al., TGRS 2022: 4,743 images, 256 px,
33 classes), UCM-Captions (Qu et al., CITS 2016: 2,100 images, 256 px, 21 classes) and Sydney-Captions (same: 613
images, 500 px) differ in names only: five captions an image in all four.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cmer.config import DemoDataset, PublishedDataset, validate
from cmer.files import read_json
from cmer.registry import UserError

AnyDataset = PublishedDataset | DemoDataset


class Sentence(BaseModel):
    """One caption; keys beside `raw` (tokens, ids) do not matter."""

    raw: str


class Entry(BaseModel):
    """One image of the annotation file; further keys are kept for the label rule `column`."""

    model_config = ConfigDict(extra="allow")

    filename: str
    split: Literal["train", "val", "test"]
    sentences: list[Sentence]

    @property
    def captions(self) -> list[str]:
        """The captions with runs of white space made one space: no tower tells them apart."""
        return [" ".join(sentence.raw.split()) for sentence in self.sentences]


def expand(path: str) -> Path:
    """`path` with `~` and environment variables expanded.

    Raises:
        UserError: a variable is not set.
    """
    expanded = os.path.expandvars(path)
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise UserError(f"environment variable {unset[1]} is not set; {path} needs it: export {unset[1]}=<folder>")
    return Path(expanded).expanduser()


def root_of(options: AnyDataset, folder: Path) -> Path:
    """The folder that holds the annotation file: the user's own, or `folder` where the project drew the data."""
    return expand(options.root) if isinstance(options, PublishedDataset) else folder


def annotations_of(options: AnyDataset, folder: Path) -> Path:
    """The annotation file of a dataset."""
    name = options.annotations if isinstance(options, PublishedDataset) else "dataset.json"
    return root_of(options, folder) / name


def read_annotations(path: Path) -> list[Entry]:
    """All images of an annotation file, in its order.

    Raises:
        UserError: the file is missing or not in the layout (the entry and key are named), names an image twice, names
            a path outside the image folder, or has no train or no test image.
    """
    data = read_json(path)
    items = data.get("images") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise UserError(f"{path} has no list `images`; expected images[].filename, .split and .sentences[].raw")
    entries = [_entry(path, number, item) for number, item in enumerate(items)]
    _check_names(path, [entry.filename for entry in entries])
    for split in ("train", "test"):
        if all(entry.split != split for entry in entries):
            raise UserError(f"{path} has no image whose split is {split!r}")
    return entries


def _entry(path: Path, number: int, item: Any) -> Entry:
    name = item.get("filename", "no filename") if isinstance(item, dict) else "not an object"
    return validate(Entry, item, f"{path}: images[{number}] ({name})")


def _check_names(path: Path, names: list[str]) -> None:
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise UserError(f"{path}: {some(outside)} would lie outside the image folder; give names inside it")
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise UserError(f"{path}: {some(twice)} appears more than once; every image has one entry, in one split")


def some(names: list[str], most: int = 10) -> str:
    """Up to `most` of the names, and how many more there are."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
