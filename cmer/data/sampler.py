"""Batches of an epoch. They depend on the arguments alone, so training resumed at any step meets the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cmer.data.pairs import Ints, Pairs


@dataclass(frozen=True)
class Batch:
    """B pairs of different images: all arrays are [B].

    Attributes:
        images: image ids, all different.
        captions: ids of a caption of each.
        prompted: whether the caption carries its scene prompt.
        views: which dihedral view of the image to show.
    """

    images: Ints
    captions: Ints
    prompted: npt.NDArray[np.bool_]
    views: Ints

    def rows(self, rows: Ints) -> Batch:
        """These rows of the batch."""
        return Batch(self.images[rows], self.captions[rows], self.prompted[rows], self.views[rows])


def epoch_batches(
    pairs: Pairs,
    *,
    epoch: int,
    seed: int,
    batch_size: int,
    epoch_of: Literal["pairs", "images"],
    prompt_share: float,
    views: int,
) -> list[Batch]:
    """The training batches of one epoch, in order.

    An epoch of `images` shows every train image once with one of its captions. An epoch of `pairs` shows every pair
    once, in rounds: each round shows every image that has a caption left with the next of its captions in a random
    order. Either way a batch has at most one caption of an image, so its other pairs are negatives. A round's last
    batch may be small; a single pair, which has no negative, joins the batch before, and is left out where it is a
    round of its own.

    Args:
        pairs: the dataset.
        epoch: number of the epoch, from 0.
        seed: of the run.
        batch_size: B.
        epoch_of: what an epoch shows once.
        prompt_share: probability that a caption carries its prompt.
        views: number of stored views, of which each pair shows one drawn uniformly.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = [rng.permutation(pairs.captions_of(np.array([image]))) for image in pairs.train_images]
    rounds = max((len(captions) for captions in shuffled), default=0) if epoch_of == "pairs" else 1
    batches = []
    for turn in range(rounds):
        captions = rng.permutation(np.array([own[turn] for own in shuffled if turn < len(own)], np.int64))
        for chunk in _chunks(captions, batch_size):
            if len(chunk) < 2:
                continue
            prompted = rng.random(len(chunk)) < prompt_share
            drawn = rng.integers(views, size=len(chunk))
            batches.append(Batch(pairs.caption_image[chunk], chunk, prompted, drawn))
    return batches


def _chunks(captions: Ints, size: int) -> list[Ints]:
    cuts = np.arange(size, len(captions), size)
    if len(cuts) and len(captions) - cuts[-1] < 2:
        cuts = cuts[:-1]
    return list(np.split(captions, cuts))
