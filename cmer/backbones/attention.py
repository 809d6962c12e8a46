"""The self-attention of transformers with one fused in-projection."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention with one forward pass for every method, frozen or trained.

    `nn.MultiheadAttention` has several forward passes of different speed, chosen by mode and by what requires a
    gradient, and none to which LoRA could add. This class takes over its parameters under the same names.

    Args:
        attention: batch-first attention of equally wide queries, keys and values, without dropout.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        assert attention.batch_first and not attention.dropout and attention.in_proj_weight is not None
        self.width, self.heads = attention.embed_dim, attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Self-attention [B, N, d] → [B, N, d], without attention weights; `attn_mask` is added to the scores."""
        assert query is key is value and not need_weights
        return self.attend(self.project(query), attn_mask), None

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side: [B, N, d] → [B, N, 3 d]."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)

    def attend(self, fused: Tensor, attn_mask: Tensor | None) -> Tensor:
        """The attention itself and the out-projection: [B, N, 3 d] → [B, N, d].

        Args:
            fused: queries, keys and values side by side.
            attn_mask: added to the scores: [N, N], or [B * heads, N, N].
        """
        # One tensor [3, B, heads, N, d / heads], as in nn.MultiheadAttention, so that equally many bytes are kept.
        q, k, v = fused.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).contiguous()
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.heads))
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return output
