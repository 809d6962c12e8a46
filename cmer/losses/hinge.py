"""The hinge loss against recycled negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from cmer.losses.memory import PairIds
from cmer.losses.queue import NegativeQueue


def queue_hinge(
    images: Tensor, texts: Tensor, batch: PairIds, queue: NegativeQueue, margin: float, difficulty: float
) -> Tensor:
    """Difficulty-weighted hinge against recycled negatives, L_queue of CMER (Eq. 16-18).

    With l = max(0, margin - positive + negative) for each pair and queue entry in both directions, this is the mean of
    l * exp(-difficulty * l) over B times the number of filled entries; gradients flow through the weight as well. The
    paper sums over the queue; the mean, as in HVSA's batch loss, keeps the term from dominating L_batch.

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e]; text i matches image i.
        batch: ids of the pairs.
        queue: past batches; the loss is zero if it is empty.
        margin: alpha.
        difficulty: beta.
    """
    positive = (images * texts).sum(dim=1, keepdim=True)
    allowed = queue.negatives(batch)
    total = positive.new_zeros(())
    for anchors, past in ((texts, queue.images), (images, queue.texts)):
        hinge = (margin - positive + anchors @ past.T).clamp(min=0)
        total = total + (hinge * torch.exp(-difficulty * hinge)).where(allowed, 0).sum()
    return total / (len(images) * queue.filled.clamp(min=1))
