"""The bank: unit embeddings of the whole train split, computed anew every few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from cmer.losses.memory import PairIds
from cmer.losses.pair_memory import PairMemory


class Bank(PairMemory):
    """A pair of every train image, as the weights embedded it up to `refresh` - 1 steps ago; empty before that.

    Its whole state is kept with the training's, so that a resumed training reads the same entries.

    Args:
        capacity: number of train images.
        dim: dimension of the embeddings.
        equal_texts_match: see `PairMemory`.
        refresh: number of steps between two refreshes.
    """

    age: Tensor
    ages: Tensor
    uses: Tensor

    def __init__(self, capacity: int, dim: int, equal_texts_match: bool, refresh: int) -> None:
        super().__init__(capacity, dim, equal_texts_match)
        self.refresh = refresh
        for name in ("age", "ages", "uses"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def enqueue(self, images: Tensor, texts: Tensor, batch: PairIds) -> None:
        """Count a step; its batch is not kept."""
        if self.filled:
            self.ages += self.age
            self.uses += 1
        self.age += 1

    def due(self) -> bool:
        """Whether all entries are to be replaced (`replaced`) before the next step."""
        return int(self.age) >= self.refresh

    def replaced(self) -> None:
        """Note that all entries were embedded by the current weights."""
        self.age.zero_()

    def staleness(self) -> float | None:
        """Mean age of the entries in the steps since the last call, in steps; None if they were empty."""
        uses, ages = int(self.uses), int(self.ages)
        self.uses.zero_()
        self.ages.zero_()
        return ages / uses if uses else None
