"""Where a dataset's files lie, in a user's folder or where the project wrote them, and what is known of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cmer.config.datasets import (
    ColumnLabels,
    Dataset,
    DemoDataset,
    FolderDataset,
    FolderLabels,
    LabelRule,
    PrefixLabels,
    PublishedDataset,
    SplitFractions,
)
from cmer.data.cards import card
from cmer.errors import UserError


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
    """Where a dataset's files lie, how its images are labelled, and what its annotations may leave open.

    Attributes:
        root: folder relative to which class lists lie.
        annotations: the annotation file; the folder of the images where class folders stand for one.
        images: folder of the images; None where they are in images.tar.
        labels: where scene labels come from.
        caption: of every image in class folders, with `{label}`; None where there is an annotation file.
        split: how images are split whose annotations name no split; None where they must.
    """

    root: Path
    annotations: Path
    images: Path | None
    labels: LabelRule
    caption: str | None = None
    split: SplitFractions | None = None


def layout_of(options: Dataset, folder: Path | str) -> Layout:
    """The layout of a dataset that is prepared in `folder`: in a user's folder, or there, where it was written.

    Raises:
        UserError: an environment variable of the root is not set.
    """
    if isinstance(options, FolderDataset):
        root = expand(options.root)
        images = root / options.images
        if options.annotations is None:
            return Layout(root, images, images, options.labels or FolderLabels(), options.caption, options.split)
        usual = PrefixLabels() if options.annotations.endswith(".json") else ColumnLabels()
        return Layout(root, root / options.annotations, images, options.labels or usual, split=options.split)
    if isinstance(options, PublishedDataset) and options.root is not None:
        known, root = card(options.source), expand(options.root)
        return Layout(root, root / known.annotations, root / known.images, known.labels)
    labels = options.labels if isinstance(options, DemoDataset) else ColumnLabels()  # `cmer fetch` writes the labels
    return Layout(Path(folder), Path(folder) / "dataset.json", None, labels)
