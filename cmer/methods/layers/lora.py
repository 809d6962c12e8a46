"""Low-rank adaptation of a tower's linear maps, through peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import MultiheadAttention
from torch import Tensor, nn
from torch.func import functional_call

from cmer.backbones.base import Backbone


class AttentionLora(MultiheadAttention):  # type: ignore[misc]
    """peft's LoRA of a fused attention, with the update added as W + B A and differentiated through.

    peft 0.21 merges the update into the frozen weights before each call and subtracts it afterwards: the output
    projection's enters twice, and the weights drift by rounding. Here they are never written.
    """

    def forward(self, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The attention with both projections updated; arguments as of `nn.MultiheadAttention`."""
        attention, out = self.base_layer, self.base_layer.out_proj
        (name,) = self.active_adapters
        weights = {
            "in_proj_weight": attention.in_proj_weight + self.get_delta_weight(name),
            "out_proj.base_layer.weight": out.base_layer.weight + out.get_delta_weight(name),
        }
        return functional_call(attention, weights, (query, *args), kwargs)


def add_lora(backbone: Backbone, linears: Sequence[str], rank: int) -> None:
    """Add trainable rank-`rank` updates to the named linear maps, in place.

    Scale 1 (lora_alpha = rank), no dropout. A fused attention counts as two maps, d x 3d and d x d: rank * (8 d) a
    block with its MLP's two, rank * 16 d in all (CMER's 3.93 M of CLIP-lora at rank 16).
    """
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(linears))
    config._register_custom_module({nn.MultiheadAttention: AttentionLora})
    inject_adapter_in_model(config, backbone)
