from dataclasses import replace

import numpy as np
import pytest

from cmer.errors import UserError
from cmer.retrieval.bootstrap import ImageHits, mr_difference, mr_interval
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
    found = mr_interval(ImageHits.of(i2t, t2i, owner), resamples=50, seed=3)
    assert found == pytest.approx(np.percentile(values, [2.5, 97.5]))


def test_holds_the_mean_narrows_with_images_and_repeats():
    few, many = ImageHits.of(*split(30)), ImageHits.of(*split(600))
    low, high = mr_interval(many)
    assert low < recalls(*split(600)[:2]).mr < high
    assert high - low < np.subtract(*mr_interval(few)[::-1])
    assert mr_interval(many) == (low, high)
    assert mr_interval(many, seed=1) != (low, high)


def test_no_width_where_every_query_is_a_hit():
    found = ImageHits.of(*ranks(np.eye(9), np.arange(9)), np.arange(9))
    assert mr_interval(found) == pytest.approx((100, 100))


def test_a_difference_equals_redrawing_images_and_seeds_one_by_one():
    """Two runs with two seeds; every resample takes the same images and seeds of both."""
    runs = [[split(20, seed) for seed in seeds] for seeds in ((0, 0), (0, 0))]
    owner = runs[0][0][2]
    draw = np.random.default_rng(9)
    for run in runs:
        for i in range(2):
            noise = draw.normal(size=(20, len(owner))) + 2 * (owner == np.arange(20)[:, None])
            run[i] = (*ranks(noise, owner), owner)
    hits = [[ImageHits.of(*found) for found in run] for run in runs]

    def mr(found, drawn):
        i2t, t2i, _ = found
        texts = np.concatenate([np.flatnonzero(owner == image) for image in drawn])
        return recalls(*(type(i2t)(*(part[rows] for part in side)) for side, rows in ((i2t, drawn), (t2i, texts)))).mr

    rng = np.random.default_rng(3)
    images = rng.multinomial(20, np.full(20, 1 / 20), 40)
    seeds = rng.multinomial(2, np.full(2, 1 / 2), 40)
    values = []
    for counts, chosen in zip(images, seeds, strict=True):
        drawn = np.repeat(np.arange(20), counts)
        per_seed = [mr(runs[0][i], drawn) - mr(runs[1][i], drawn) for i in np.repeat(np.arange(2), chosen)]
        values.append(np.mean(per_seed))
    found = mr_difference(*hits, resamples=40, seed=3)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))
    everything = np.arange(20)
    means = [np.mean([mr(found, everything) for found in run]) for run in runs]
    assert found.estimate == pytest.approx(means[0] - means[1])


def test_pairing_supports_a_small_difference_that_overlapping_intervals_hide():
    """The second run is the first one with a few queries spoiled."""
    i2t, t2i, owner = split(300)
    spoiled = i2t._replace(greater=np.where(np.arange(300) % 20 == 0, 99, i2t.greater))
    better, worse = ImageHits.of(i2t, t2i, owner), ImageHits.of(spoiled, t2i, owner)
    assert mr_interval(better)[0] < mr_interval(worse)[1]
    found = mr_difference([better], [worse])
    assert found.supported and 0 < found.low < found.estimate < found.high
    back = mr_difference([worse], [better])
    assert back.supported and back.estimate == pytest.approx(-found.estimate)
    same = mr_difference([better], [better])
    assert not same.supported and same == (0, 0, 0)


def test_runs_on_different_test_splits_are_not_compared():
    first, second = ImageHits.of(*split(20)), ImageHits.of(*split(21))
    with pytest.raises(UserError, match="their seeds or test splits differ"):
        mr_difference([first], [second])
    with pytest.raises(UserError, match="their seeds or test splits differ"):
        mr_difference([first], [first, first])
    renamed = replace(first, ids=first.ids + 100)
    with pytest.raises(UserError, match="their seeds or test splits differ"):
        mr_difference([first], [renamed])
