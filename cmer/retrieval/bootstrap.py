"""Bootstrap interval of mR over test images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cmer.retrieval.recall import K, Ranks, expected_hits


def mr_interval(
    i2t: Ranks, t2i: Ranks, text_image: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of mR, in percent.

    Queries are resampled, and the gallery is fixed. Images are drawn with replacement, each together with its captions,
    because these are not independent of each other.

    Args:
        i2t: ranks [n_images].
        t2i: ranks [n_texts].
        text_image: [n_texts] row of the image of each text.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    owner, n_images = np.asarray(text_image), len(i2t.greater)
    image_hits = np.stack([expected_hits(i2t, k) for k in K], axis=1)
    text_hits = np.stack([np.bincount(owner, expected_hits(t2i, k), n_images) for k in K], axis=1)
    texts = np.bincount(owner, minlength=n_images)
    draws = np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), resamples)
    recall_i2t = draws @ image_hits / n_images
    recall_t2i = draws @ text_hits / (draws @ texts)[:, None]
    mr = 100 * np.concatenate([recall_i2t, recall_t2i], axis=1).mean(axis=1)
    low, high = np.percentile(mr, [2.5, 97.5])
    return float(low), float(high)
