"""Which images train, validate and test: as the dataset says or, where it does not, drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmer.config.datasets import SplitFractions


def drawn_splits(files: Sequence[str], labels: Sequence[str], fractions: SplitFractions) -> list[str]:
    """The split of each image of a dataset that names none: every class is split in these proportions.

    A class of three images or more is in all of train, val and test, one of two in train and test; images whose class
    has no other, and those without a label, are split together. An image's rank within its class is the hash of its
    name and the seed: neither the order of the files nor other images change it.

    Args:
        files: name of each image.
        labels: of each image, "" for none.
        fractions: of val and test, and the seed.

    Returns:
        "train", "val" or "test" for each image.
    """
    sizes = Counter(labels)
    groups: dict[str, list[int]] = {}
    for image, label in enumerate(labels):
        groups.setdefault(label if sizes[label] > 1 else "", []).append(image)
    splits = ["train"] * len(files)
    for images in groups.values():
        images.sort(key=lambda image: hashlib.sha256(f"{fractions.seed} {files[image]}".encode()).digest())
        val, test = _counts(len(images), fractions)
        for image in images[:test]:
            splits[image] = "test"
        for image in images[test : test + val]:
            splits[image] = "val"
    return splits


def _counts(size: int, fractions: SplitFractions) -> tuple[int, int]:
    """How many of a group are val and test; each has one, and train too, as far as there are enough."""
    has_val = fractions.val > 0 and size > 2
    test = min(max(round(fractions.test * size), 1), size - 1 - has_val)
    val = min(max(round(fractions.val * size), 1), size - 1 - test) if has_val else 0
    return val, test


def validation_ids(images: pd.DataFrame, seed: int) -> list[int]:
    """Ids of the validation images, ascending; no test image is ever among them.

    Where the dataset has a val split it is that, whatever the seed. Else 10 % of the train images, rounded up (as
    HVSA, Zhang et al., TGRS 2023, re-splits RSITMD's 4,291 for each seed: 3,861 stay).

    Args:
        images: the rows of images.csv.
        seed: of the draw.
    """
    own = images.loc[images["split"] == "val", "image_id"]
    if len(own):
        return sorted(own.tolist())
    train = images.loc[images["split"] == "train", "image_id"].to_numpy()
    count = -(-len(train) // 10)
    drawn = np.random.default_rng(seed).permutation(train)[:count]
    return sorted(drawn.tolist())
