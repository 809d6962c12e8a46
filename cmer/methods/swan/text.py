"""The text tower of SWAN: gated attention over words, and n-grams."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.methods.layers.words import last_state

HEADS = 2
NGRAMS = (2, 3)


class GatedAttention(nn.Module):
    """Self-attention whose queries and keys are gated by sigmoid(W_g (W_q q ⊙ W_k k)), per head.

    Args:
        dim: width of a word's state.
        rounded: whether scores are rounded down before the softmax, which stops their gradients.
    """

    def __init__(self, dim: int, rounded: bool) -> None:
        super().__init__()
        self.rounded, width = rounded, dim // HEADS
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gate_query, self.gate_key = nn.Linear(width, width), nn.Linear(width, width)
        self.gate = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """States [B, L, dim] and their mask [B, L] → [B, L, dim]."""
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        for_query, for_key = self.gate(self.gate_query(q) * self.gate_key(k)).sigmoid().chunk(2, dim=-1)
        scores = (q * for_query) @ (k * for_key).transpose(2, 3) / math.sqrt(q.shape[-1])
        scores = scores.floor() if self.rounded else scores
        weights = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(dim=-1)
        output: Tensor = (weights @ v).transpose(1, 2).flatten(2)
        return output


class Ngrams(nn.Module):
    """ReLU(LN(conv(x))) of k neighbouring words at a time, without overlap."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.convolution, self.norm = nn.Conv1d(dim, dim, size, stride=size), nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, L, dim], zero on padding, and their mask [B, L] → n-grams [B, L / k, dim] and their mask."""
        missing = -x.shape[1] % self.size
        found = self.convolution(F.pad(x, (0, 0, 0, missing)).transpose(1, 2)).transpose(1, 2)
        return F.relu(self.norm(found)), F.pad(mask, (0, missing))[:, :: self.size]


class SwanText(nn.Module):
    """s = z_last + mean(z of the n-grams) with z = MLP(y) + y, where y is x + LN(attention(x)) of a word, or an n-gram.

    The release reads z_last alone: it appends the n-grams to the words and takes the state at the last word's place, so
    that they have no effect. It has BatchNorm where LN is here, and lets padding take part in both attention and norm;
    here, a text has the same embedding in any batch.

    Args:
        dim: width of the GRU's states and of s.
        released: whether to compute s as the release does, with rounded scores and from z_last alone.
    """

    def __init__(self, dim: int, released: bool) -> None:
        super().__init__()
        self.released = released
        self.attention, self.norm, self.dropout = GatedAttention(dim, released), nn.LayerNorm(dim), nn.Dropout(0.2)
        self.ngrams = nn.ModuleList(Ngrams(dim, size) for size in NGRAMS)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, L, dim] of the GRU, zero on padding, and their mask [B, L] → [B, dim]."""
        last = last_state(states + self.dropout(self.norm(self.attention(states, mask))), mask)
        output: Tensor = self.mlp(last) + last
        if self.released:
            return output
        found = [ngrams(states, mask) for ngrams in self.ngrams]
        joint, real = torch.cat([y for y, _ in found], dim=1), torch.cat([real for _, real in found], dim=1)
        summed: Tensor = ((self.mlp(joint) + joint) * real.unsqueeze(-1)).sum(dim=1)
        return output + summed / real.sum(dim=1, keepdim=True)
