"""The three counts of every query, one comparison at a time, whatever the size of the blocks."""

import numpy as np
import pytest

from cmer.errors import UserError
from cmer.retrieval.recall import ranks


def counted(scores, right):
    """Greater wrong answers, wrong answers tied with the best right one, and right answers tied with it."""
    best = max(score for score, hit in zip(scores, right, strict=True) if hit)
    wrong = [score for score, hit in zip(scores, right, strict=True) if not hit]
    hits = [score for score, hit in zip(scores, right, strict=True) if hit]
    return sum(score > best for score in wrong), wrong.count(best), hits.count(best)


@pytest.mark.parametrize("block", [1, 30, 45, 10**6])
def test_counts_are_those_of_single_comparisons(monkeypatch, block) -> None:
    monkeypatch.setattr("cmer.retrieval.recall.BLOCK", block)
    draw = np.random.default_rng(0)
    owner = draw.permutation(np.concatenate([np.arange(7), draw.integers(0, 7, 8)]))
    scores = draw.integers(0, 5, (7, 15)).astype(np.float32)
    i2t, t2i = ranks(scores, owner)
    images = [counted(scores[i].tolist(), owner == i) for i in range(7)]
    texts = [counted(scores[:, j].tolist(), np.arange(7) == owner[j]) for j in range(15)]
    for found, expected in ((i2t, images), (t2i, texts)):
        assert np.array_equal(np.stack(found, axis=1), expected)
        assert {part.dtype for part in found} == {np.dtype(np.int64)}


def test_input_that_does_not_fit_says_why() -> None:
    with pytest.raises(ValueError, match=r"^scores \(2, 3\) and text_image \(2,\) do not fit \[n_images, n_texts\]"):
        ranks(np.zeros((2, 3)), [0, 1])
    for owner in ([0, 0], [0, 2], [0, -1]):
        with pytest.raises(ValueError, match=r"^every image needs a text, and every text an image$"):
            ranks(np.zeros((2, 2)), owner)
    with pytest.raises(UserError, match=r"^a similarity is not a number \(NaN\)"):
        ranks(np.array([[0.0, np.nan], [0.0, 0.0]]), [0, 1])
