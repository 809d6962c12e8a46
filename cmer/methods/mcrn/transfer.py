"""The pattern transfer that all modalities of MCRN share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODALITIES = 3
"""Image, text and audio; as many patterns are mixed."""
FEED_FORWARD = 768
DROPOUT = 0.3


class TokenLayer(nn.Module):
    """A pre-norm transformer layer on a sequence of one token, and a LayerNorm.

    A token that can only attend to itself has attention 1: its self-attention is the value map and the output map, and
    neither queries nor keys have any effect.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.Linear(dim, dim))
        inner = [nn.Linear(dim, FEED_FORWARD), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(FEED_FORWARD, dim)]
        self.feed_forward = nn.Sequential(nn.LayerNorm(dim), *inner)
        self.dropout, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim] → [B, dim]."""
        x = x + self.dropout(self.attention(x))
        output: Tensor = self.norm(x + self.dropout(self.feed_forward(x)))
        return output


class PatternTransfer(nn.Module):
    """layer'(sum over m of w_m z M_m) with z = layer(BN(x / |x|)) and w = sigmoid(MLP(z)), for three matrices M_m.

    The release draws M_m uniformly from [0, 1), so that all patterns are nearly the same sum of z; here they start as
    the identity and noise (Xavier's).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.enter, self.leave = nn.BatchNorm1d(dim), TokenLayer(dim), TokenLayer(dim)
        patterns = [torch.eye(dim) + nn.init.xavier_uniform_(torch.empty(dim, dim)) for _ in range(MODALITIES)]
        self.patterns = nn.Parameter(torch.stack(patterns))
        hidden = [nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.2)]
        self.mix = nn.Sequential(*hidden, nn.Linear(2 * dim, MODALITIES), nn.Dropout(0.2), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim] → [B, dim]."""
        z = self.enter(self.norm(F.normalize(x, dim=-1)))
        output: Tensor = self.leave(torch.einsum("bm,bi,mij->bj", self.mix(z), z, self.patterns))
        return output
