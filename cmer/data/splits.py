"""Train, validation and test splits: those of the dataset, or random splits if it has none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmer.config.datasets import SplitFractions


def drawn_splits(files: Sequence[str], labels: Sequence[str], fractions: SplitFractions) -> list[str]:
    """Split a dataset that names no splits: every class is split in these proportions.

    A class of three or more images is in train, val and test, a class of two in train and test. Images that are alone
    in their class and images without a label are split together. Within a class, images are sorted by the hash of their
    name and the seed, so neither the order of the files nor other images change the order of two images.

    Args:
        files: name of each image.
        labels: label of each image, "" for none.
        fractions: fractions of val and test, and the seed.

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
    """Number of val and test images in a group; each split, train included, gets at least one if there are enough."""
    has_val = fractions.val > 0 and size > 2
    test = min(max(round(fractions.test * size), 1), size - 1 - has_val)
    val = min(max(round(fractions.val * size), 1), size - 1 - test) if has_val else 0
    return val, test


def validation_ids(images: pd.DataFrame, seed: int) -> list[int]:
    """Ids of the validation images, ascending; never test images.

    These are the dataset's val split if it has one, whatever the seed; otherwise 10 % of the train images, rounded up
    (as in HVSA, Zhang et al., TGRS 2023, which re-splits RSITMD's 4,291 images for each seed: 3,861 remain).

    Args:
        images: rows of images.csv.
        seed: seed of the random selection.
    """
    own = images.loc[images["split"] == "val", "image_id"]
    if len(own):
        return sorted(own.tolist())
    train = images.loc[images["split"] == "train", "image_id"].to_numpy()
    count = -(-len(train) // 10)
    drawn = np.random.default_rng(seed).permutation(train)[:count]
    return sorted(drawn.tolist())
