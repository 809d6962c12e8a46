"""Which pairs of the test split are looked at."""

from dataclasses import replace

import numpy as np
import pytest

from cmer.data.targets import PAIRS, given_pairs, smallest_targets
from cmer.errors import UserError


def with_texts(pairs, texts: dict[int, str]):
    """The pairs with other texts of the first captions of their test images, by number of the image."""
    every = list(pairs.texts)
    for number, text in texts.items():
        every[pairs.captions_of(pairs.test_images[[number]])[0]] = text
    return replace(pairs, texts=every)


def test_the_smallest_things_that_are_named_come_first(prepared) -> None:
    texts = {0: "a bridge", 2: "Two planes, and a car park .", 3: "a scar on the pond", 5: "three planes", 7: "a pool"}
    pairs = with_texts(prepared.pairs, texts)
    found = smallest_targets(pairs)
    assert [pairs.texts[caption] for caption in found] == [texts[number] for number in (2, 7, 5, 3)]
    assert PAIRS == 4


def test_shared_captions_are_left_out_and_other_images_fill_up(prepared) -> None:
    pairs = with_texts(prepared.pairs, {0: "a boat", 1: "a boat", 4: "a boat at sea"})
    found = smallest_targets(pairs)
    assert pairs.texts[found[0]] == "a boat at sea"
    images = pairs.caption_image[found]
    assert len(set(images)) == PAIRS and np.isin(images, pairs.test_images).all()


def test_given_captions_are_found_by_their_words(prepared) -> None:
    pairs = with_texts(prepared.pairs, {3: "There is a Pond."})
    assert given_pairs(pairs, ["there is a pond"]) == [pairs.captions_of(pairs.test_images[[3]])[0]]
    with pytest.raises(UserError, match="'a moon' is no caption of a test image; give the text of one, such as '"):
        given_pairs(pairs, ["a moon"])
