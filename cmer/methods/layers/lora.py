"""Low-rank adaptation of a tower's linear maps, through peft."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Conv2d, Linear, LoraLayer, MultiheadAttention
from torch import Tensor, nn

from cmer.backbones.base import Backbone


def update(layer: LoraLayer, x: Tensor) -> Tensor:
    """B (A x). peft's own forward also multiplies by the scale, here 1, and casts what autocast casts back."""
    (name,) = layer.active_adapters
    result: Tensor = layer.lora_B[name](layer.lora_A[name](x))
    return result


def updated(layer: LoraLayer, x: Tensor) -> Tensor:
    """W x + B (A x)."""
    result: Tensor = layer.base_layer(x) + update(layer, x)
    return result


class LinearLora(Linear):  # type: ignore[misc]
    """LoRA of a linear map."""

    forward = updated


class ConvolutionLora(Conv2d):  # type: ignore[misc]
    """LoRA of a 1 x 1 convolution."""

    forward = updated


class AttentionLora(MultiheadAttention):  # type: ignore[misc]
    """LoRA of a fused self-attention, with each update computed beside its frozen map as in any other.

    peft 0.21 merges the updates into the frozen weights before each call and subtracts them afterwards: the output
    projection's enters twice, and the weights drift by rounding. Merged weights also have gradients of their own
    size, which cost as much as those of full fine-tuning.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Attention of [B, N, d] to itself: [B, N, d], no weights.

        `attn_mask`, [N, N] or [B * heads, N, N], is added to the scores.
        """
        assert query is key is value
        attention = self.base_layer
        fused = F.linear(query, attention.in_proj_weight, attention.in_proj_bias) + update(self, query)
        # One tensor of [3, B, heads, N, d / heads], as nn.MultiheadAttention has it, so that as much is kept.
        q, k, v = fused.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).contiguous()
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, attention.num_heads))
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return updated(attention.out_proj, heads.transpose(1, 2).flatten(2)), None


def add_lora(backbone: Backbone, linears: Sequence[str], rank: int) -> None:
    """Add trainable rank-`rank` updates to the named linear maps, in place.

    Scale 1 (lora_alpha = rank), no dropout. A fused attention counts as two maps, d x 3d and d x d: rank * (8 d) a
    block with its MLP's two, rank * 16 d in all (CMER's 3.93 M of CLIP-lora at rank 16).
    """
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(linears))
    kinds = {nn.MultiheadAttention: AttentionLora, nn.Linear: LinearLora, nn.Conv2d: ConvolutionLora}
    config._register_custom_module(kinds)
    inject_adapter_in_model(config, backbone)
