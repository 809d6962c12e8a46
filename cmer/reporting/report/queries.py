"""The queries of a run that it answers best and worst, with the images that it ranks first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmer.retrieval.recall import ranks

SHOWN = 10
"""Queries on either side."""
TOP = 5
"""Images per query."""


@dataclass(frozen=True)
class Query:
    """A text query and its result.

    Attributes:
        caption: row of the caption.
        image: row of its image.
        rank: rank of its image; the expected one among ties.
        top: rows of the images with the highest scores.
    """

    caption: int
    image: int
    rank: float
    top: list[int]


def best_and_worst(scores: NDArray[np.float32], owner: NDArray[np.int64]) -> tuple[list[Query], list[Query]]:
    """The best and the worst queries, at most one per image, so that equal captions do not fill the list.

    Queries of equal rank are ordered by the margin of their image over the best other one.

    Args:
        scores: [n_images, n_captions] similarity.
        owner: [n_captions] row of the image of each caption.
    """
    found = ranks(scores, owner)[1]
    rank = 1 + found.greater + found.tied_negatives / 2
    columns = np.arange(scores.shape[1])
    others = scores.copy()
    others[owner, columns] = -np.inf
    margin = scores[owner, columns] - others.max(axis=0)
    order = np.lexsort((columns, -margin, rank))
    return _shown(order, scores, owner, rank), _shown(order[::-1], scores, owner, rank)


def _shown(
    order: NDArray[np.int64], scores: NDArray[np.float32], owner: NDArray[np.int64], rank: NDArray[np.float64]
) -> list[Query]:
    firsts = {int(owner[caption]): int(caption) for caption in order[::-1]}  # the first caption of each image
    chosen = sorted(firsts.values(), key=np.argsort(order).__getitem__)[:SHOWN]
    return [
        Query(
            caption=caption,
            image=int(owner[caption]),
            rank=float(rank[caption]),
            top=np.argsort(-scores[:, caption], kind="stable")[:TOP].tolist(),
        )
        for caption in chosen
    ]
