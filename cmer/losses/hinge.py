"""The hinge loss against recycled negatives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cmer.losses.memory import PairIds
from cmer.losses.queue import NegativeQueue


def queue_hinge(
    images: Tensor,
    texts: Tensor,
    batch: PairIds,
    queue: NegativeQueue,
    margin: float,
    difficulty: float,
    normaliser: Literal["mean", "mean_violating", "sum_per_pair"] = "mean",
) -> Tensor:
    """Difficulty-weighted hinge against recycled negatives, L_queue of CMER (Eq. 16-18).

    With l = max(0, margin - positive + negative) for each pair and queue entry in both directions, this is the sum of
    l * exp(-difficulty * l) over Z; gradients flow through the weight as well. Z is B times the number of filled
    entries (`mean`, as in HVSA's batch loss, which keeps the term from dominating L_batch), in each direction the
    number of entries with l > 0 (`mean_violating`), or B (`sum_per_pair`, Eq. 18 read literally).

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e]; text i matches image i.
        batch: ids of the pairs.
        queue: past batches; the loss is zero if it is empty.
        margin: alpha.
        difficulty: beta.
        normaliser: Z.
    """
    positive = (images * texts).sum(dim=1, keepdim=True)
    allowed = queue.negatives(batch)
    total = positive.new_zeros(())
    for anchors, past in ((texts, queue.images), (images, queue.texts)):
        hinge = (margin - positive + anchors @ past.T).clamp(min=0)
        weighted = (hinge * torch.exp(-difficulty * hinge)).where(allowed, 0).sum()
        if normaliser == "mean_violating":
            weighted = weighted / ((hinge > 0) & allowed).sum().clamp(min=1)
        total = total + weighted
    if normaliser == "mean_violating":
        return total
    return total / (len(images) * (queue.filled.clamp(min=1) if normaliser == "mean" else 1))
