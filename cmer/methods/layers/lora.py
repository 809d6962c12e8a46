"""Low-rank adaptation of a tower's linear maps, through peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from peft import LoraConfig
from peft.tuners.lora.layer import Conv2d, Linear, LoraLayer
from torch import Tensor, nn

from cmer.backbones.attention import SelfAttention
from cmer.backbones.base import Backbone
from cmer.errors import UserError


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


class AttentionLora(nn.Module, LoraLayer):  # type: ignore[misc]
    """LoRA of the fused in-projection of a self-attention, whose forward pass is otherwise that of the frozen one.

    peft has a layer for `nn.MultiheadAttention`, which always adapts both projections. Version 0.21 merges the updates
    into the frozen weights before each call and subtracts them afterwards: the update of the out-projection is applied
    twice, rounding errors accumulate in the weights, and gradients of merged weights are as large, and cost as much, as
    those of full fine-tuning.
    """

    def __init__(
        self, base_layer: SelfAttention, adapter_name: str, config: LoraConfig, r: int, lora_alpha: int, **kwargs: Any
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        LoraLayer.update_layer(self, adapter_name, r, lora_alpha=lora_alpha, config=config)

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, SelfAttention)
        return module.width, 3 * module.width

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See `SelfAttention`."""
        assert query is key is value and not need_weights
        attention = cast(SelfAttention, self.base_layer)
        return attention.attend(attention.project(query) + update(self, query), attn_mask), None


KINDS: dict[type[nn.Module], Any] = {SelfAttention: AttentionLora, nn.Linear: LinearLora, nn.Conv2d: ConvolutionLora}


def add_lora(backbone: Backbone, linears: Sequence[str], rank: int) -> None:
    """Add trainable updates of rank `rank` to the named linear maps, in place.

    Scale 1 (lora_alpha = rank), no dropout. On a map from m to n channels the update has rank * (m + n) parameters. A
    fused in-projection counts as one map, d x 3d.

    Raises:
        UserError: one of the layers is not a linear map.
    """
    config = LoraConfig(r=rank, lora_alpha=rank)
    layers = {name: backbone.get_submodule(name) for name in linears}
    # Attentions come last, because their out-projections have other names once they are adapted.
    for name, layer in sorted(layers.items(), key=lambda item: isinstance(item[1], SelfAttention)):
        kind = next((kind for base, kind in KINDS.items() if isinstance(layer, base)), None)
        if kind is None:
            raise UserError(f"LoRA cannot adapt {name}: a {type(layer).__name__} is not a linear map")
        backbone.set_submodule(name, kind(layer, "default", config, r=rank, lora_alpha=rank))
