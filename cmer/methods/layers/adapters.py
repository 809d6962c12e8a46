"""Bottleneck adapters, and functions that attach them to a tower's sub-layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Backbone, Site


class Adapter(nn.Module):
    """W_up GELU(W_down x), initialised to zero output (Houlsby et al. 2019).

    Args:
        width: width of x.
        bottleneck: inner width.
        bias: whether both maps have a bias.
    """

    def __init__(self, width: int, bottleneck: int, bias: bool) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, bias)
        self.up = nn.Linear(bottleneck, width, bias)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        return torch.as_tensor(self.up(F.gelu(self.down(x))))


class SharedAdapter(nn.Module):
    """An adapter whose last output channels come from a map shared with other adapters.

    concat(W_own z, W_shared z) with z = dropout(activation(W_down x)).

    Args:
        width: width of x.
        shared: W_shared with its bias; at narrow sites only its first width / 2 output channels are used.
        activation: activation in the bottleneck.
        dropout: dropout in the bottleneck.
    """

    def __init__(self, width: int, shared: nn.Linear, activation: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.common = min(shared.out_features, width // 2)
        self.down = nn.Linear(width, shared.in_features)
        self.own = nn.Linear(shared.in_features, width - self.common)
        self.shared = shared
        self.inner = nn.Sequential(activation, nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        z = self.inner(self.down(x))
        shared = F.linear(z, self.shared.weight[: self.common], self.shared.bias[: self.common])
        return torch.cat([self.own(z), shared], dim=-1)


def attach_serial(backbone: Backbone, site: Site, adapter: nn.Module) -> None:
    """Replace the sub-layer's output y with y + adapter(y)."""
    backbone.get_submodule(site.exit).register_forward_hook(partial(_serial, adapter, site.channels_first))


def attach_parallel(backbone: Backbone, site: Site, adapter: nn.Module) -> None:
    """Replace the sub-layer's output y with y + adapter(x), where x is the sub-layer's input."""
    entered: list[Tensor] = []
    backbone.get_submodule(site.entry).register_forward_pre_hook(lambda _module, args: entered.append(args[0]))
    exit_ = backbone.get_submodule(site.exit)
    exit_.register_forward_hook(partial(_parallel, adapter, site.channels_first, entered))


def _serial(adapter: nn.Module, channels_first: bool, _module: nn.Module, _args: Any, y: Tensor) -> Tensor:
    return y + _apply(adapter, channels_first, y)


def _parallel(
    adapter: nn.Module, channels_first: bool, entered: list[Tensor], _module: nn.Module, _args: Any, y: Tensor
) -> Tensor:
    return y + _apply(adapter, channels_first, entered.pop())


def _apply(adapter: nn.Module, channels_first: bool, x: Tensor) -> Tensor:
    output: Tensor = adapter(x.movedim(1, -1)).movedim(-1, 1) if channels_first else adapter(x)
    return output
