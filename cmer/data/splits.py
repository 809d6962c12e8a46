"""Train, validation and test splits: those of the dataset, or grouped and stratified random splits if it has none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from cmer.config.datasets import SplitFractions
from cmer.errors import UserError


def drawn_splits(
    files: Sequence[str], labels: Sequence[str], groups: Sequence[int], fractions: SplitFractions
) -> list[str]:
    """Split a dataset that names no splits: every class in these proportions, and every group on one side.

    Without groups of several images, a class of three or more images is in train, val and test, a class of two in train
    and test. Images that are alone in their class and images without a label are split together. Groups are sorted by
    the lowest hash of the seed and the name of one of their images, so the order of the files has no influence. If a
    split would get less than half of its images because groups are too large, images are split one by one.

    Args:
        files: name of each image.
        labels: label of each image, "" for none.
        groups: group of each image (`image_groups`).
        fractions: fractions of val and test, and the seed.

    Returns:
        "train", "val" or "test" for each image.
    """
    strata = _strata(labels)
    counts = {stratum: _counts(size, fractions) for stratum, size in Counter(strata).items()}
    quotas = {
        "test": {stratum: test for stratum, (_, test) in counts.items()},
        "val": {stratum: val for stratum, (val, _) in counts.items()},
    }
    return _assigned(files, strata, groups, quotas, fractions.seed)


def _counts(size: int, fractions: SplitFractions) -> tuple[int, int]:
    """Number of val and test images in a class; each split, train included, gets at least one if there are enough."""
    has_val = fractions.val > 0 and size > 2
    test = min(max(round(fractions.test * size), 1), size - 1 - has_val)
    val = min(max(round(fractions.val * size), 1), size - 1 - test) if has_val else 0
    return val, test


def validation_ids(images: pd.DataFrame, groups: pd.Series[int], seed: int) -> list[int]:
    """Ids of the validation images, ascending; never test images.

    These are the dataset's val split if it has one, whatever the seed; otherwise 10 % of the train images, rounded up
    (as in HVSA, Zhang et al., TGRS 2023, which re-splits RSITMD's 4,291 images for each seed: 3,861 remain), and 10 %
    of every class. Images of a group stay on one side, so the share of a class differs if its groups are large; if less
    than 5 % could be drawn in groups, images are drawn one by one.

    Args:
        images: rows of images.csv.
        groups: group of each train image, by image_id (`image_groups`).
        seed: seed of the random selection.

    Raises:
        UserError: there is only one train image.
    """
    own = images.loc[images["split"] == "val", "image_id"]
    if len(own):
        return sorted(own.tolist())
    train = images[images["split"] == "train"]
    strata, files = _strata(train["label"].tolist()), train["file"].tolist()
    if len(train) < 2:
        raise UserError("there is 1 train image, and none to validate on; give the dataset more images")
    groups_of_train = groups.loc[train["image_id"]].tolist()
    splits = _assigned(files, strata, groups_of_train, {"val": _tenths(Counter(strata))}, seed)
    return sorted(image for image, split in zip(train["image_id"].tolist(), splits, strict=True) if split == "val")


def _tenths(sizes: Mapping[str, int]) -> dict[str, int]:
    """A tenth of each class, rounded so that the sum is a tenth of all, rounded up (largest remainders)."""
    tenths = {stratum: divmod(size, 10) for stratum, size in sorted(sizes.items())}
    missing = -(-sum(sizes.values()) // 10) - sum(whole for whole, _ in tenths.values())
    rounded_up = sorted(tenths, key=lambda stratum: -tenths[stratum][1])[:missing]
    return {stratum: whole + (stratum in rounded_up) for stratum, (whole, _) in tenths.items()}


def _strata(labels: Sequence[str]) -> list[str]:
    """What is split in proportion: classes; images that are alone in their class count as having no label."""
    sizes = Counter(labels)
    return [label if sizes[label] > 1 else "" for label in labels]


def _assigned(
    files: Sequence[str],
    strata: Sequence[str],
    groups: Sequence[int],
    quotas: Mapping[str, Mapping[str, int]],
    seed: int,
) -> list[str]:
    """The split of each image: whole groups, near the quotas of each split and stratum, and train for the rest.

    Image by image, as if no two were in one group, where a split would otherwise get less than half of its images.
    """
    order = sorted(range(len(files)), key=lambda image: hashlib.sha256(f"{seed} {files[image]}".encode()).digest())
    splits = _assigned_in(order, strata, groups, quotas)
    counts = Counter(splits)
    if any(2 * counts[split] < sum(quota.values()) for split, quota in quotas.items()):
        return _assigned_in(order, strata, range(len(files)), quotas)
    return splits


def _assigned_in(
    order: Sequence[int], strata: Sequence[str], groups: Sequence[int], quotas: Mapping[str, Mapping[str, int]]
) -> list[str]:
    splits, members = ["train"] * len(order), dict[int, list[int]]()
    for image in order:
        members.setdefault(groups[image], []).append(image)
    sizes = {group: Counter(strata[image] for image in images) for group, images in members.items()}
    train = Counter(strata)
    for split, quota in quotas.items():
        for group in _taken(sizes, Counter(quota), train):
            del sizes[group]
            for image in members[group]:
                splits[image] = split
    return splits


def _taken(sizes: Mapping[int, Counter[str]], missing: Counter[str], train: Counter[str]) -> Iterator[int]:
    """Groups, in their order, that bring a split closer to its size.

    First those that fit into what the strata lack; then, as long as images are missing, those that exceed it least.
    Each stratum keeps an image in train.

    Args:
        sizes: number of images of each group in each stratum.
        missing: number of images that the split still lacks in each stratum; counted down.
        train: number of images in train in each stratum; counted down.
    """
    left, lacking = dict(sizes), missing.total()
    for excess in (0, *(2**power for power in range(lacking.bit_length() + 1))):
        for group, size in list(left.items()):
            over = sum(min(count, max(count - missing[stratum], 0)) for stratum, count in size.items())
            fits = size.total() < 2 * lacking and all(train[stratum] > count for stratum, count in size.items())
            if fits and over <= excess:
                lacking -= left.pop(group).total()
                missing.subtract(size)
                train.subtract(size)
                yield group
