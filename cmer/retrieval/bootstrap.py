"""Bootstrap intervals of mR, and of differences in mR between two runs, over test images and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmer.errors import UserError
from cmer.retrieval.recall import Hits, K, Ranks, expected_hits

RESAMPLES = 1000
LEVELS = (2.5, 97.5)
"""Percentiles of a 95 % interval."""


@dataclass(frozen=True)
class ImageHits:
    """Expected hits of the queries of each test image, at each k of `K`.

    Attributes:
        ids: [N] ids of the images.
        images: [N, 3] hits of the image as a query.
        texts: [N, 3] sum of the hits of its captions.
        captions: [N] number of its captions.
    """

    ids: NDArray[Any]
    images: Hits
    texts: Hits
    captions: NDArray[np.int64]

    @classmethod
    def of(cls, i2t: Ranks, t2i: Ranks, text_image: ArrayLike, ids: ArrayLike | None = None) -> ImageHits:
        """Count the hits of each image and of its captions.

        Args:
            i2t: ranks [n_images].
            t2i: ranks [n_texts].
            text_image: [n_texts] row of the image of each text.
            ids: [n_images] ids of the images; None: their rows.
        """
        owner, n = np.asarray(text_image), len(i2t.greater)
        images = np.stack([expected_hits(i2t, k) for k in K], axis=1)
        texts: Hits = np.stack([np.bincount(owner, expected_hits(t2i, k), n) for k in K], axis=1)
        return cls(np.asarray(range(n) if ids is None else ids), images, texts, np.bincount(owner, minlength=n))

    def queries(self) -> list[tuple[Any, int]]:
        """Id and number of captions of each image, by which test splits are told apart."""
        return list(zip(self.ids.tolist(), self.captions.tolist(), strict=True))

    def mr(self, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """MR [R] in percent of R resamples, which draw image i `draws[r, i]` times."""
        i2t = draws @ self.images / draws.sum(axis=1, keepdims=True)
        t2i = draws @ self.texts / (draws @ self.captions)[:, None]
        found: NDArray[np.float64] = 100 * np.concatenate([i2t, t2i], axis=1).mean(axis=1)
        return found


class Difference(NamedTuple):
    """Difference in mR between two runs, in percentage points, with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def supported(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def mr_interval(hits: ImageHits, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of mR, in percent.

    Queries are resampled, and the gallery is fixed. Images are drawn with replacement, each together with its captions,
    because these are not independent of each other.

    Args:
        hits: hits of one run and seed.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    low, high = np.percentile(hits.mr(_draws(np.random.default_rng(seed), len(hits.images), resamples)), LEVELS)
    return float(low), float(high)


def mr_difference(
    run: Sequence[ImageHits], other: Sequence[ImageHits], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Difference in mR of two runs, with a 95 % paired two-level bootstrap interval.

    Every resample draws images and seeds with replacement, the same ones for both runs. What both runs find equally
    hard therefore cancels out, so the interval can exclude zero although the runs' own intervals overlap.

    Args:
        run: hits of a run, one entry per seed.
        other: hits of the run that is subtracted, with the same seeds and test images in the same order.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Raises:
        UserError: the number of seeds, the test images or their captions differ.
    """
    if [hits.queries() for hits in run] != [hits.queries() for hits in other]:
        raise UserError("two runs cannot be compared: their seeds or test splits differ; evaluate them again")
    rng, images = np.random.default_rng(seed), len(run[0].images)
    draws = _draws(rng, images, resamples)
    weights = _draws(rng, len(run), resamples) / len(run)
    pairs = list(zip(run, other, strict=True))
    resampled = np.stack([one.mr(draws) - two.mr(draws) for one, two in pairs], axis=1)
    low, high = np.percentile((weights * resampled).sum(axis=1), LEVELS)
    once = np.ones((1, images), np.int64)
    estimate = np.mean([one.mr(once) - two.mr(once) for one, two in pairs])
    return Difference(float(estimate), float(low), float(high))


def _draws(rng: np.random.Generator, count: int, resamples: int) -> NDArray[np.int64]:
    """How often each of `count` things is drawn in each of the resamples."""
    return rng.multinomial(count, np.full(count, 1 / count), resamples)
