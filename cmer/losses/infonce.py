"""InfoNCE with the entries of a memory as further negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cmer.losses.memory import PairIds
from cmer.losses.pair_memory import PairMemory


def contrastive_with(
    images: Tensor, texts: Tensor, scale: Tensor, positives: Tensor | None, memory: PairMemory, batch: PairIds
) -> Tensor:
    """The loss `contrastive` of a batch, whose denominators also have the negatives in the memory.

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e]; text i matches image i.
        scale: 1 / temperature.
        positives: [B, B], true if text j also matches image i; None: only text i matches image i.
        memory: embeddings of other pairs; of an image or text, those that `memory.negatives` allows are negatives.
        batch: ids of the pairs.

    Returns:
        A scalar: the mean over both directions.
    """
    logits = scale * images @ texts.T
    matching = torch.eye(len(logits), device=logits.device) if positives is None else positives.to(logits.dtype)
    total = logits.new_zeros(())
    further = _further(images, texts, scale, memory, batch)
    for own, shares, past in zip((logits, logits.T), (matching, matching.T), further, strict=True):
        target = ((shares / shares.sum(dim=1, keepdim=True)) * own).sum(dim=1)
        total = total + (torch.cat([own, past], dim=1).logsumexp(dim=1) - target).mean()
    return total / 2


def memory_infonce(images: Tensor, texts: Tensor, scale: Tensor, memory: PairMemory, batch: PairIds) -> Tensor:
    """Symmetric InfoNCE of every pair against the negatives in the memory alone; zero if there are none.

    Arguments as in `contrastive_with`.
    """
    positive = scale * (images * texts).sum(dim=1, keepdim=True)
    each = [
        torch.cat([positive, past], dim=1).logsumexp(dim=1) - positive.squeeze(1)
        for past in _further(images, texts, scale, memory, batch)
    ]
    return torch.stack(each).mean()


def _further(images: Tensor, texts: Tensor, scale: Tensor, memory: PairMemory, batch: PairIds) -> tuple[Tensor, Tensor]:
    """Logits [B, capacity] of the images against the memory's texts, and of the texts against its images."""
    excluded = ~memory.negatives(batch)
    first, second = scale * images @ memory.texts.T, scale * texts @ memory.images.T
    return first.masked_fill(excluded, -math.inf), second.masked_fill(excluded, -math.inf)
