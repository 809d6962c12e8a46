"""Subsamples of the train images: the same for every seed."""

from pathlib import Path

import pandas as pd
import pytest

from cmer.data.frames import IMAGES, read_frame, write_frame
from cmer.data.pairs import Pairs
from cmer.data.splits import validation_ids


@pytest.fixture
def seeds(prepared, tmp_path: Path) -> list[Pairs]:
    """The dataset with the validation splits of three seeds, which differ."""
    images = read_frame(prepared.folder / "images.csv", IMAGES)
    found = []
    for seed in range(3):
        file = tmp_path / f"validation.seed{seed}.csv"
        write_frame(file, pd.DataFrame({"image_id": validation_ids(images, images["image_id"], seed)}))
        found.append(Pairs.read(prepared.folder, prepared.captions, file))
    assert len({tuple(pairs.val_images) for pairs in found}) == 3
    return found


def test_seeds_differ_only_by_their_own_validation_images(seeds: list[Pairs]) -> None:
    for count in (5, 12):
        first, *others = (set(pairs.subsample(count).train_images) for pairs in seeds)
        for other, pairs in zip(others, seeds[1:], strict=True):
            swapped = len(first & set(pairs.val_images)) + len(other & set(seeds[0].val_images))
            assert len(first) == len(other) == count
            assert len(first - other) <= swapped


def test_a_larger_subsample_contains_a_smaller_one_and_no_validation_image(seeds: list[Pairs]) -> None:
    for pairs in seeds:
        small, large = (set(pairs.subsample(count).train_images) for count in (4, 11))
        assert small < large < set(pairs.train_images)
        assert pairs.subsample(1000) is pairs and pairs.subsample(None) is pairs
