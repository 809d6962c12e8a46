"""Batches of an epoch. They depend only on the arguments, so a training resumed at any step gets the same batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cmer.data.pairs import Ints, Pairs


@dataclass(frozen=True)
class Batch:
    """B pairs of different images; all arrays have shape [B].

    Attributes:
        images: image ids, all different.
        captions: id of one caption per image.
        prompted: whether the caption has its scene prompt.
        views: dihedral view of each image.
    """

    images: Ints
    captions: Ints
    prompted: npt.NDArray[np.bool_]
    views: Ints

    def rows(self, rows: Ints) -> Batch:
        """The batch restricted to these rows."""
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

    An epoch of `images` contains every train image once, with one of its captions. An epoch of `pairs` contains every
    pair once and consists of rounds: in each round, every image that still has an unused caption appears with the next
    of its shuffled captions. Either way, a batch has at most one caption per image, so all other pairs are negatives.
    The last batch of a round may be small. A single remaining pair, which would have no negatives, joins the previous
    batch, and is skipped if it is the only pair of its round.

    Args:
        pairs: the dataset.
        epoch: number of the epoch, from 0.
        seed: seed of the run.
        batch_size: B.
        epoch_of: whether an epoch contains every image or every pair once.
        prompt_share: probability that a caption has its prompt.
        views: number of stored views; each pair uses one of them, drawn uniformly.
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
