"""How much a tenth of the official train images repeats the rest of them, drawn at random and in groups."""

import os

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table
from test_real import FILES, read

from cmer.data.cards import card
from cmer.data.groups import image_groups
from cmer.data.labels import known_labels
from cmer.data.leaks import Part
from cmer.data.repeats import repeats
from cmer.data.splits import validation_ids

pytestmark = pytest.mark.skipif("CMER_DATA_ROOT" not in os.environ, reason="CMER_DATA_ROOT is not set")
SEEDS = range(2022, 2025)
PERCENT = {
    "rsicd": ((39.0, 25.4), (37.0, 0.0)),
    "rsitmd": ((3.1, 0.3), (2.1, 0.0)),
    "ucm": ((90.1, 81.7), (54.4, 0.0)),
    "sydney": ((76.9, 71.3), (59.5, 0.0)),
}
"""Captions and sets of captions of validation that are also in train: drawn at random, and in groups; three seeds."""


@pytest.mark.parametrize("name", list(FILES))
def test_what_validation_repeats_at_random_and_in_groups(name: str) -> None:
    root, entries = read(name)
    entries = [entry for entry in entries if entry.split == "train"]
    files, labels = [entry.filename for entry in entries], known_labels(entries, card(name).labels, root)[0]
    distinct = [f"{image:064x}" for image in range(len(files))]
    images = images_table(len(files), file=files, label=labels, split="train", sha256=distinct).assign(hash="0" * 64)
    pairs = [(image, text) for image, entry in enumerate(entries) for text in entry.captions]
    captions = pd.DataFrame(pairs, columns=["image_id", "caption"])
    groups = image_groups(images, captions.set_index("image_id")["caption"])

    def percent(chosen: list[int]) -> tuple[float, float]:
        held, texts = images["image_id"].isin(chosen), captions["image_id"].isin(chosen)
        train, val = (
            Part(name, "train", images[~held], captions[~texts]),
            Part(name, "val", images[held], captions[texts]),
        )
        (found,) = repeats([val, train])
        return 100 * found.captions, 100 * found.caption_sets

    tenth = -(-len(files) // 10)
    orders = [np.random.default_rng(seed).permutation(len(files)).tolist() for seed in SEEDS]
    chosen = [validation_ids(images, groups, seed) for seed in SEEDS]
    for drawn, known in zip(([order[:tenth] for order in orders], chosen), PERCENT[name], strict=True):
        assert np.mean([percent(ids) for ids in drawn], axis=0) == pytest.approx(known, abs=0.06)
    assert {len(ids) for ids in chosen} == {tenth}
    kept = set(labels) if name != "ucm" else set(labels) - {"agricultural", "chaparral"}
    assert all({labels[image] for image in ids} == kept for ids in chosen)
