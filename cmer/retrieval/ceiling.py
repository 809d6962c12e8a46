"""How far retrieval by captions of the images can go: human captions in place of a captioner's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmer.errors import UserError
from cmer.retrieval.recall import Ranks, Recalls, ranks, recalls
from cmer.retrieval.scores import Indices

Matrix = NDArray[np.floating]
Encoder = Callable[[Sequence[str], Sequence[str]], Matrix]
"""(n queries, m captions of the gallery) → similarity [n, m]; higher is closer."""
Reduce = Literal["max", "mean"]
SHARES = tuple(step / 10 for step in range(11))
"""Shares of the second encoder in a fusion, from which validation chooses."""


@dataclass(frozen=True)
class Captions:
    """The captions of the images of a split.

    Attributes:
        texts: [m] captions, image by image.
        owner: [m] row of the image of each caption.
        fold: [m] place of each caption among those of its image, from 0.
    """

    texts: list[str]
    owner: Indices
    fold: Indices

    @classmethod
    def of(cls, images: Sequence[Sequence[str]]) -> Captions:
        """From the captions of each image.

        Raises:
            UserError: there is no image, or one has a single caption, so that none is left to represent it.
        """
        if not images or min(map(len, images)) < 2:
            raise UserError("each image needs at least two captions: one is the query, the others represent the image")
        owner = np.repeat(np.arange(len(images)), [len(each) for each in images])
        fold = np.concatenate([np.arange(len(each)) for each in images])
        return cls([text for each in images for text in each], owner, fold)

    def repeats(self) -> NDArray[np.bool_]:
        """Whether [m] another caption of the same image is the same text."""
        pairs = list(zip(self.owner.tolist(), self.texts, strict=True))
        times = Counter(pairs)
        return np.array([times[pair] > 1 for pair in pairs])


def caption_scores(captions: Captions, encoder: Encoder, reduce: Reduce) -> Matrix:
    """Score [n_images, m] of every image for every caption as the query.

    In each fold, one caption of every image is a query, and an image is represented by its other captions. Its score is
    the best or the mean of theirs. A query is never among the captions that represent an image, unless another caption
    of the image is the same text.
    """
    found = np.empty((captions.owner[-1] + 1, len(captions.texts)))
    for fold in np.unique(captions.fold):
        queries, gallery = np.flatnonzero(captions.fold == fold), np.flatnonzero(captions.fold != fold)
        each = encoder(*([captions.texts[row] for row in rows] for rows in (queries, gallery)))
        starts = np.searchsorted(captions.owner[gallery], np.arange(len(found)))
        if reduce == "max":
            found[:, queries] = np.maximum.reduceat(each, starts, axis=1).T
        else:
            counts = np.bincount(captions.owner[gallery], minlength=len(found))
            found[:, queries] = (np.add.reduceat(each, starts, axis=1) / counts).T
    return found


def recalls_of(scores: Matrix, captions: Captions, kept: NDArray[np.bool_] | None = None) -> Recalls:
    """Recalls of the queries in both directions; every caption is a query, and every image is one.

    Args:
        scores: [n_images, m] from `caption_scores`.
        captions: captions of the split.
        kept: [m] captions that count as queries and answers; all images stay in every caption's ranking. None: all.

    Raises:
        UserError: no caption is kept.
    """
    if kept is None:
        return recalls(*ranks(scores, captions.owner))
    if not kept.any():
        raise UserError("every caption is repeated for its image: no query is left without them")
    owner = captions.owner[kept]
    # An image without a kept caption gets one that no ranking prefers, and is no query itself.
    bare = np.setdiff1d(np.arange(len(scores)), owner)
    filler = np.full((len(scores), len(bare)), -np.inf)
    i2t, t2i = ranks(np.hstack([scores[:, kept], filler]), np.concatenate([owner, bare]))
    asked = np.isin(np.arange(len(scores)), owner)
    return recalls(Ranks(*(count[asked] for count in i2t)), Ranks(*(count[: len(owner)] for count in t2i)))


@dataclass(frozen=True)
class Fusion:
    """Weighted sum of the scores of two encoders, each divided by its standard deviation on validation.

    Attributes:
        share: weight of the second encoder, with the best validation mR; the first has 1 - share.
        spreads: standard deviations.
    """

    share: float
    spreads: tuple[float, float]

    def scores(self, first: Matrix, second: Matrix) -> Matrix:
        """The fused scores."""
        return (1 - self.share) * first / self.spreads[0] + self.share * second / self.spreads[1]


def fit_fusion(first: Matrix, second: Matrix, validation: Captions) -> Fusion:
    """Choose the share by mR on the validation captions, of which both encoders give the scores."""
    spreads = float(first.std()) or 1.0, float(second.std()) or 1.0
    return max(
        (Fusion(share, spreads) for share in SHARES),
        key=lambda fusion: recalls_of(fusion.scores(first, second), validation).mr,
    )
