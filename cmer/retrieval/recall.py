"""Recall at k in both directions, with exact treatment of ties.

Whether a query is a hit at k depends only on three counts (`Ranks`): wrong answers above its best right answer, wrong
answers tied with it, and right answers tied with it. With random tie-breaking, the probability of a hit has a closed
form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmer.errors import UserError

K = (1, 5, 10)
BLOCK = 4_000_000  # scores compared at a time; temporaries take some tens of MB

Counts = NDArray[np.int64]
Hits = NDArray[np.float64]


class Ranks(NamedTuple):
    """Rank of the best right answer of each query, as three counts with shape [Q].

    Attributes:
        greater: number of wrong answers with a higher score.
        tied_negatives: number of wrong answers with the same score.
        tied_positives: number of right answers with the same score, including itself.
    """

    greater: Counts
    tied_negatives: Counts
    tied_positives: Counts


@dataclass(frozen=True)
class Recalls:
    """The six recalls of a test split, in percent."""

    i2t_r1: float
    i2t_r5: float
    i2t_r10: float
    t2i_r1: float
    t2i_r5: float
    t2i_r10: float

    @property
    def mr(self) -> float:
        """Mean of the six recalls, in percent."""
        return fmean(asdict(self).values())

    def as_dict(self) -> dict[str, float]:
        """The six recalls and `mr`, by name."""
        return asdict(self) | {"mr": self.mr}


def ranks(scores: ArrayLike, text_image: ArrayLike) -> tuple[Ranks, Ranks]:
    """Rank the captions of every image and the image of every caption.

    An image has several right captions, but only those with its best score matter: a right caption with a lower score
    is in the top k only if all of those are. The image is therefore a hit exactly if one of them is in the top k.

    Args:
        scores: similarity [n_images, n_texts], a numpy array or CPU tensor; higher is closer.
        text_image: [n_texts] row of the image that each text describes; every image has a text.

    Returns:
        image-to-text ranks [n_images] and text-to-image ranks [n_texts].

    Raises:
        ValueError: the shapes do not fit, or an image has no text.
        UserError: a score is NaN.
    """
    matrix, owner = np.asarray(scores), np.asarray(text_image)
    n_images, n_texts = _shape(matrix, owner)
    own = matrix[owner, np.arange(n_texts)]
    i2t = Ranks(*(np.zeros(n_images, np.int64) for _ in Ranks._fields))
    t2i = Ranks(np.zeros(n_texts, np.int64), np.full(n_texts, -1), np.ones(n_texts, np.int64))
    step = max(1, BLOCK // n_texts)
    for start in range(0, n_images, step):
        rows = slice(start, start + step)
        block = matrix[rows]
        if np.isnan(block).any():
            raise UserError(
                "a similarity is not a number (NaN): the training diverged; lower training.lr and train again"
            )
        t2i.greater[:] += (block > own).sum(0)
        t2i.tied_negatives[:] += (block == own).sum(0)
        right = owner == np.arange(n_images)[rows, None]
        best = np.where(right, block, -np.inf).max(1, keepdims=True)
        tied = block == best
        i2t.greater[rows] = (block > best).sum(1)
        i2t.tied_positives[rows] = (tied & right).sum(1)
        i2t.tied_negatives[rows] = (tied & ~right).sum(1)
    return i2t, t2i


def _shape(matrix: NDArray[Any], owner: NDArray[Any]) -> tuple[int, int]:
    if matrix.ndim != 2 or owner.shape != matrix.shape[1:]:
        raise ValueError(
            f"scores {matrix.shape} and text_image {owner.shape} do not fit [n_images, n_texts] and [n_texts]"
        )
    if not np.array_equal(np.unique(owner), np.arange(matrix.shape[0])):
        raise ValueError("every image needs a text, and every text an image")
    return matrix.shape[0], matrix.shape[1]


def expected_hits(ranks: Ranks, k: int) -> Hits:
    """Probability [Q] of a hit at k with random tie-breaking.

    1 - C(t, m) / C(t + p, m) with t tied wrong answers, p tied right answers and m = k - greater remaining places: the
    probability that not all m places go to wrong answers.
    """
    places = k - ranks.greater
    miss = np.ones(len(places))
    for taken in range(k):
        left = ranks.tied_negatives - taken
        wrong = np.maximum(left, 0) / np.maximum(left + ranks.tied_positives, 1)
        miss = np.where(taken < places, miss * wrong, miss)
    return 1 - miss


def optimistic_hits(ranks: Ranks, k: int) -> Hits:
    """Hit [Q] at k if every tie is broken in favour of the right answer."""
    return (ranks.greater < k).astype(np.float64)


def pessimistic_hits(ranks: Ranks, k: int) -> Hits:
    """Hit [Q] at k if every tie is broken in favour of the wrong answers."""
    return (ranks.greater + ranks.tied_negatives < k).astype(np.float64)


def recalls(i2t: Ranks, t2i: Ranks, hits: Callable[[Ranks, int], Hits] = expected_hits) -> Recalls:
    """The six recalls; `hits` determines how ties count."""
    return Recalls(*(100 * float(hits(direction, k).mean()) for direction in (i2t, t2i) for k in K))
