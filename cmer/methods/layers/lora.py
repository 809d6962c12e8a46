"""Low-rank adaptation of a tower's linear maps, through peft."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Conv2d, Linear, LoraLayer, MultiheadAttention
from torch import Tensor, nn

from cmer.backbones.base import Backbone


def update(layer: LoraLayer, x: Tensor) -> Tensor:
    """B (A x). peft's own forward also multiplies by the scale, here 1, and adds casts that autocast reverts."""
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
    """LoRA of a fused self-attention that computes each update beside its frozen map, as other LoRA layers do.

    peft 0.21 instead merges the updates into the frozen weights before each call and subtracts them afterwards: the
    update of the output projection is applied twice, and rounding errors accumulate in the weights. Gradients of merged
    weights are also as large, and cost as much, as those of full fine-tuning.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Self-attention [B, N, d] → [B, N, d], without attention weights; `attn_mask` is added to the scores."""
        assert query is key is value
        attention = self.base_layer
        fused = F.linear(query, attention.in_proj_weight, attention.in_proj_bias) + update(self, query)
        # One tensor [3, B, heads, N, d / heads], as in nn.MultiheadAttention, so that equally many bytes are kept.
        q, k, v = fused.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).contiguous()
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, attention.num_heads))
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return updated(attention.out_proj, heads.transpose(1, 2).flatten(2)), None


def add_lora(backbone: Backbone, linears: Sequence[str], rank: int) -> None:
    """Add trainable updates of rank `rank` to the named linear maps, in place.

    Scale 1 (lora_alpha = rank), no dropout. A fused attention consists of two maps, d x 3d and d x d, with rank * 6 d
    parameters; with both maps of the MLP, a block has rank * 16 d parameters (CLIP-lora's printed 3.93 M at rank 16).
    """
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(linears))
    kinds = {nn.MultiheadAttention: AttentionLora, nn.Linear: LinearLora, nn.Conv2d: ConvolutionLora}
    config._register_custom_module(kinds)
    inject_adapter_in_model(config, backbone)
