"""The negative queue of CMER: unit embeddings of past batches."""

from __future__ import annotations

from torch import Tensor

from cmer.losses.memory import PairIds
from cmer.losses.pair_memory import PairMemory


class NegativeQueue(PairMemory):
    """The pairs of the last batches, up to capacity / batch steps old (CMER, Fig. 4)."""

    def enqueue(self, images: Tensor, texts: Tensor, batch: PairIds) -> None:
        """Replace the oldest entries with the batch [B, e]."""
        self.add(images, texts, batch)
