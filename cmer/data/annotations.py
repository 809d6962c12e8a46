"""The layout in which remote-sensing caption sets are published: `dataset*.json` beside an image folder.

RSICD (Lu et al., TGRS 2018: 10,921 images, 224 px, 31 classes), RSITMD (Yuan et al., TGRS 2022: 4,743 images, 256 px,
33 classes), UCM-Captions (Qu et al., CITS 2016: 2,100 images, 256 px, 21 classes) and Sydney-Captions (same: 613
images, 500 px) differ in names only: five captions an image in all four.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cmer.config import (
    ColumnLabels,
    Dataset,
    DemoDataset,
    FolderDataset,
    FolderLabels,
    KnownDataset,
    LabelRule,
    PrefixLabels,
    validate,
)
from cmer.data.cards import card
from cmer.files import read_json
from cmer.registry import UserError


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


@dataclass(frozen=True)
class Layout:
    """Where a dataset's files lie, and how its images are labelled.

    Attributes:
        root: folder relative to which class lists lie.
        annotations: the annotation file.
        images: folder of the images; None where they are in images.tar.
        labels: where scene labels come from.
    """

    root: Path
    annotations: Path
    images: Path | None
    labels: LabelRule


def layout_of(options: Dataset, folder: Path | str) -> Layout:
    """The layout of a dataset that is prepared in `folder`: in a user's folder, or there, where it was written.

    Raises:
        UserError: an environment variable of the root is not set.
    """
    if isinstance(options, FolderDataset):
        root = expand(options.root)
        file = root / (options.annotations or "")
        return Layout(root, file, root / options.images, options.labels or _usual_labels(file))
    if isinstance(options, KnownDataset) and options.root is not None:
        known, root = card(options.source), expand(options.root)
        return Layout(root, root / known.annotations, root / known.images, known.labels)
    labels = options.labels if isinstance(options, DemoDataset) else ColumnLabels()  # `cmer fetch` writes the labels
    return Layout(Path(folder), Path(folder) / "dataset.json", None, labels)


def _usual_labels(file: Path) -> LabelRule:
    match file.suffix:
        case ".json":
            return PrefixLabels()
        case ".csv" | ".jsonl":
            return ColumnLabels()
        case _:
            return FolderLabels()


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
