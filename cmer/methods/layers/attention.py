"""Scaled dot-product attention on the maps of a library's layer."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, C] → [B, heads, N, C / heads]."""
    apart: Tensor = x.unflatten(-1, (heads, -1))
    return apart.transpose(1, 2)


def attend(layer: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention with the heads and the dropout of a layer.

    Args:
        layer: the self-attention of BERT or ViLT, or another attention with the same attributes.
        queries: [B, Q, d].
        keys: [B, K, d].
        values: [B, K, d].
        mask: [B, K], true where a key counts; None: all of them do.

    Returns:
        [B, Q, d].
    """
    heads = layer.num_attention_heads
    given = None if mask is None else mask[:, None, None, :]
    q, k, v = (split_heads(part, heads) for part in (queries, keys, values))
    found = F.scaled_dot_product_attention(q, k, v, given, layer.dropout.p if layer.training else 0.0)
    return found.transpose(1, 2).flatten(2)
