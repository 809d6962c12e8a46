"""Layout of a dataset's files, in a user's folder or in the folder where the project wrote them."""

from __future__ import annotations

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
from cmer.io import expand


@dataclass(frozen=True)
class Layout:
    """Paths of a dataset's files, and how to find labels, captions and splits that its annotations do not state.

    Attributes:
        root: folder that contains the folder of the class lists.
        annotations: the annotation file, or the folder of the images if they are in class folders.
        images: folder of the images; None if they are in images.tar.
        labels: where scene labels come from.
        caption: template with `{label}` for the captions of class folders; None if there is an annotation file.
        split: random split of images whose annotations name no split; None if they must name one.
    """

    root: Path
    annotations: Path
    images: Path | None
    labels: LabelRule
    caption: str | None = None
    split: SplitFractions | None = None


def layout_of(options: Dataset, folder: Path | str) -> Layout:
    """The layout of a dataset that is prepared in `folder`; its files are in the user's folder or in `folder` itself.

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
    labels = options.labels if isinstance(options, DemoDataset) else ColumnLabels()  # written by `cmer fetch`
    return Layout(Path(folder), Path(folder) / "dataset.json", None, labels)
