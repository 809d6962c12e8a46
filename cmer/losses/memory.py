"""What a method remembers of past batches, whatever its items are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairIds:
    """Which image, which unique text and which scene class the pairs of a batch are of.

    Attributes:
        images: [B] image ids.
        texts: [B] ids of unique texts; a caption is the same with and without its prompt.
        labels: [B] scene classes, -1 where there is none.
    """

    images: Tensor
    texts: Tensor
    labels: Tensor

    def positives(self) -> Tensor:
        """[B, B], true where pair j shares pair i's text or image."""
        return (self.texts[:, None] == self.texts) | (self.images[:, None] == self.images)


class Memory(ABC):
    """Past batches that the losses read; part of the resumable state of a training."""

    @abstractmethod
    def enqueue(self, images: Any, texts: Any, batch: PairIds) -> None:
        """Add the items of a batch, trees of detached tensors, after its optimisation step."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: plain values and tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Return to a saved state."""

    @abstractmethod
    def to(self, device: torch.device) -> Memory:
        """The same on `device`."""

    def tensors(self) -> list[Tensor]:
        """What it keeps in memory between steps."""
        return [value for value in self.state_dict().values() if isinstance(value, Tensor)]
