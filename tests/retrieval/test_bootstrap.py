import numpy as np
import pytest

from cmer.retrieval.bootstrap import mr_interval
from cmer.retrieval.recall import ranks, recalls


def split(images: int, seed: int = 0):
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), draw.integers(1, 6, images))
    scores = draw.normal(size=(images, len(owner))) + 2 * (owner == np.arange(images)[:, None])
    return (*ranks(scores, owner), owner)


def test_equals_redrawing_images_with_their_captions_one_by_one():
    i2t, t2i, owner = split(20)
    values = []
    for counts in np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), 50):
        drawn = np.repeat(np.arange(20), counts)
        texts = np.concatenate([np.flatnonzero(owner == image) for image in drawn])
        subset = [type(i2t)(*(part[rows] for part in found)) for found, rows in ((i2t, drawn), (t2i, texts))]
        values.append(recalls(*subset).mr)
    assert mr_interval(i2t, t2i, owner, resamples=50, seed=3) == pytest.approx(np.percentile(values, [2.5, 97.5]))


def test_holds_the_mean_narrows_with_images_and_repeats():
    few, many = split(30), split(600)
    low, high = mr_interval(*many)
    assert low < recalls(*many[:2]).mr < high
    assert high - low < np.subtract(*mr_interval(*few)[::-1])
    assert mr_interval(*many) == (low, high)
    assert mr_interval(*many, seed=1) != (low, high)


def test_no_width_where_every_query_is_a_hit():
    found = ranks(np.eye(9), np.arange(9))
    assert mr_interval(*found, np.arange(9)) == pytest.approx((100, 100))
