"""Dropout whose masks are cheap to draw, and stochastic depth that does not compute what it drops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cmer.backbones.base import Features


class Dropout(nn.Dropout):
    """`nn.Dropout`, with masks from uniform numbers on a CPU.

    torch draws these in a third of the time of its Bernoulli generator.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop each element with probability p, and divide the others by 1 - p."""
        if not self.training or not self.p or x.is_cuda:
            return super().forward(x)
        return x * torch.rand(x.shape, device=x.device).ge_(self.p).div_(1 - self.p)


class DropPath(nn.Module):
    """Stochastic depth that computes a branch only for the items that keep it.

    If all items of a batch lose it, one is computed and multiplied by zero, so that every parameter has a gradient: the
    processes of a training average theirs.

    Args:
        p: probability that an item loses its branch in training.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, features: Features, branch: Callable[[Features], Tensor]) -> Tensor:
        """The branch [B, d] of B items: zeros where dropped, otherwise divided by 1 - p."""
        if not self.training or not self.p:
            return branch(features)
        first = next(iter(features.blocks.values()))
        keep = torch.rand(len(first), device=first.device) >= self.p
        rows = keep.nonzero().squeeze(1) if keep.any() else torch.zeros_like(keep[:1], dtype=torch.int64)
        blocks = {block: x[rows] for block, x in features.blocks.items()}
        mask = None if features.mask is None else features.mask[rows]
        outputs = branch(Features(features.pooled, blocks, mask))
        scaled = outputs * (keep[rows].unsqueeze(1) / (1 - self.p))
        return scaled.new_zeros(len(first), scaled.shape[1]).index_copy(0, rows, scaled)
