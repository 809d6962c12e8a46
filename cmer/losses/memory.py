"""Interface of a method's memory of past batches, for any kind of items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairIds:
    """Image, unique text and scene class of each pair in a batch.

    Attributes:
        images: [B] image ids.
        texts: [B] ids of unique texts; a caption has the same id with and without its prompt.
        labels: [B] scene classes, -1 for images without one.
    """

    images: Tensor
    texts: Tensor
    labels: Tensor

    def positives(self) -> Tensor:
        """Positives [B, B]: true if pairs i and j have the same text or the same image."""
        return (self.texts[:, None] == self.texts) | (self.images[:, None] == self.images)


class Memory(ABC):
    """Past batches that the losses read; part of a training's resumable state."""

    @abstractmethod
    def enqueue(self, images: Any, texts: Any, batch: PairIds) -> None:
        """Add the items of a batch, trees of detached tensors, after its optimisation step."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain values and tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Restore a saved state."""

    @abstractmethod
    def to(self, device: torch.device) -> Memory:
        """Move the memory to `device`."""

    def tensors(self) -> list[Tensor]:
        """The tensors kept between steps."""
        return [value for value in self.state_dict().values() if isinstance(value, Tensor)]
