"""Negative recycling: what a method remembers of past batches, and the hinge loss against it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Meta:
    """Who the pairs of a batch are: [B] indices of image, of unique text, and of scene label (-1: none)."""

    images: Tensor
    texts: Tensor
    labels: Tensor


class Memory(nn.Module, ABC):
    """What a method remembers of past batches; its buffers are part of the resumable state."""

    @abstractmethod
    def enqueue(self, images: Tensor, texts: Tensor, meta: Meta) -> None:
        """Take in a batch after its optimisation step."""


class NegativeQueue(Memory):
    """The last `capacity` pairs of unit embeddings with their image ids and labels, first in, first out.

    Entries are detached copies, up to capacity / batch steps old (CMER, Fig. 4); only filled places count.

    Args:
        capacity: pairs kept (queue length times batch size).
        dim: of the embeddings.
    """

    images: Tensor
    texts: Tensor
    image_ids: Tensor
    labels: Tensor
    filled: Tensor
    position: Tensor

    def __init__(self, capacity: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(capacity, dim))
        self.register_buffer("texts", torch.zeros(capacity, dim))
        self.register_buffer("image_ids", torch.full((capacity,), -1))
        self.register_buffer("labels", torch.full((capacity,), -1))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, images: Tensor, texts: Tensor, meta: Meta) -> None:
        """Put the batch [B, e] in the place of the oldest entries."""
        capacity = len(self.images)
        images, texts = images[-capacity:], texts[-capacity:]
        meta = Meta(meta.images[-capacity:], meta.texts[-capacity:], meta.labels[-capacity:])
        where = (self.position + torch.arange(len(images), device=images.device)) % capacity
        self.images[where], self.texts[where] = images.float(), texts.float()
        self.image_ids[where], self.labels[where] = meta.images, meta.labels
        self.position.copy_((self.position + len(images)) % capacity)
        self.filled.copy_((self.filled + len(images)).clamp(max=capacity))

    def negatives(self, meta: Meta) -> Tensor:
        """[B, capacity], true where a filled entry has another image and another label than the pair.

        An unlabelled pair or entry is told apart by its image alone.
        """
        filled = torch.arange(len(self.images), device=self.images.device) < self.filled
        other_image = meta.images[:, None] != self.image_ids
        unlabelled = (meta.labels[:, None] < 0) | (self.labels < 0)
        return filled & other_image & (unlabelled | (meta.labels[:, None] != self.labels))


def queue_hinge(
    images: Tensor, texts: Tensor, meta: Meta, queue: NegativeQueue, margin: float, difficulty: float
) -> Tensor:
    """Difficulty-weighted hinge against recycled negatives, L_queue of CMER (Eq. 16-18).

    With l = max(0, margin - positive + negative) for each pair and queue entry in both directions, the mean of
    l * exp(-difficulty * l) over B times the filled entries; the weight is part of the gradient. The paper's sum
    over the queue is divided by the entries, as in HVSA's batch loss, so that it does not drown L_batch.

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e], matching row by row.
        meta: of the batch.
        queue: past batches; an empty one costs nothing.
        margin: alpha.
        difficulty: beta.
    """
    positive = (images * texts).sum(dim=1, keepdim=True)
    allowed = queue.negatives(meta)
    total = positive.new_zeros(())
    for anchors, past in ((texts, queue.images), (images, queue.texts)):
        hinge = (margin - positive + anchors @ past.T).clamp(min=0)
        total = total + (hinge * torch.exp(-difficulty * hinge)).where(allowed, 0).sum()
    return total / (len(images) * queue.filled.clamp(min=1))
