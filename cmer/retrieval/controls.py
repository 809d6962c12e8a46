"""Controls: rankers that use neither image nor text, with which recalls must be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cmer.retrieval.recall import Ranks, Recalls, recalls


def label_only(labels: Sequence[str], text_image: ArrayLike) -> Recalls:
    """Expected recalls of a ranker that knows only the true scene label of every image and caption.

    It ranks the members of the query's class first, in random order: similarity 1 within a class and 0 otherwise.
    A method whose queries contain the true label starts from these recalls.

    Args:
        labels: [n_images] scene labels; images without one ("") count as one class.
        text_image: [n_texts] row of the image of each text; every image has a text.
    """
    owner = np.asarray(text_image)
    _, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    texts = np.bincount(owner, minlength=len(code))
    class_images, class_texts = np.bincount(code), np.bincount(code, texts).astype(np.int64)
    i2t = Ranks(np.zeros_like(texts), class_texts[code] - texts, texts)
    t2i = Ranks(np.zeros_like(owner), class_images[code[owner]] - 1, np.ones_like(owner))
    return recalls(i2t, t2i)
