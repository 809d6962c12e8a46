"""A memory of unit embeddings of pairs, whose entries are negatives of the pairs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cmer.losses.memory import Memory, PairIds


class PairMemory(nn.Module, Memory):
    """The last `capacity` pairs of unit embeddings with their image, text and label ids, first in, first out.

    Entries are detached copies; unfilled entries are ignored.

    Args:
        capacity: maximum number of pairs.
        dim: dimension of the embeddings.
        equal_texts_match: whether pairs with equal captions are positives of each other in the batch loss, and so never
            negatives here.
    """

    images: Tensor
    texts: Tensor
    image_ids: Tensor
    text_ids: Tensor
    labels: Tensor
    filled: Tensor
    position: Tensor

    def __init__(self, capacity: int, dim: int, equal_texts_match: bool = False) -> None:
        super().__init__()
        self.equal_texts_match = equal_texts_match
        self.register_buffer("images", torch.zeros(capacity, dim))
        self.register_buffer("texts", torch.zeros(capacity, dim))
        self.register_buffer("image_ids", torch.full((capacity,), -1))
        self.register_buffer("text_ids", torch.full((capacity,), -1))
        self.register_buffer("labels", torch.full((capacity,), -1))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, images: Tensor, texts: Tensor, batch: PairIds) -> None:
        """Replace the oldest entries with the batch [B, e]."""
        capacity = len(self.images)
        images, texts = images[-capacity:], texts[-capacity:]
        where = (self.position + torch.arange(len(images), device=images.device)) % capacity
        self.images[where], self.texts[where] = images.float(), texts.float()
        self.image_ids[where], self.text_ids[where] = batch.images[-capacity:], batch.texts[-capacity:]
        self.labels[where] = batch.labels[-capacity:]
        self.position.copy_((self.position + len(images)) % capacity)
        self.filled.copy_((self.filled + len(images)).clamp(max=capacity))

    def negatives(self, batch: PairIds) -> Tensor:
        """Negatives [B, capacity]: true for filled entries whose image and label differ from those of the pair.

        Labels are compared only if the pair and the entry have one, captions only if equal ones match.
        """
        filled = torch.arange(len(self.images), device=self.images.device) < self.filled
        same = batch.images[:, None] == self.image_ids
        same |= (batch.labels[:, None] == self.labels) & (self.labels >= 0)
        if self.equal_texts_match:
            same |= batch.texts[:, None] == self.text_ids
        return filled & ~same
