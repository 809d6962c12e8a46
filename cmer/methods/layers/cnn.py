"""Maps of a CNN at several strides, through timm."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from cmer.backbones.base import Preprocess
from cmer.errors import UserError
from cmer.methods.layers.timm_towers import Frozen, timm_tower

STRIDES = [2, 4, 8, 16, 32]
CLASSES = 1000
"""Of ImageNet."""


class CnnStages(nn.Module):
    """A CNN of timm up to its last map; its classifier is left out.

    Args:
        name: timm's name of the CNN.
        weights: see `timm_tower`.
        size: side of the images, pixels.
        trained: whether it is trained; if not, it stays in eval mode and keeps nothing for a backward pass.

    Attributes:
        channels: channels of the maps at strides 2, 4, 8, 16 and 32.
        preprocess: the model's own mean and standard deviation, at the given size.

    Raises:
        UserError: timm has no such CNN, or its weights cannot be had or do not fit.
    """

    def __init__(self, name: str, weights: str | None, size: int, trained: bool = True) -> None:
        super().__init__()
        net = timm_tower(name, weights, maps=True)
        if net.feature_info.reduction() != STRIDES:
            raise UserError(f"{name} has maps at strides {net.feature_info.reduction()}; use one with {STRIDES}")
        self.channels: list[int] = net.feature_info.channels()
        statistics = timm.get_pretrained_cfg(name)
        self.preprocess = Preprocess(size=size, mean=statistics.mean, std=statistics.std)
        self.net = net if trained else Frozen(net)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels [B, 3, S, S] → five maps [B, C, S / stride, S / stride]."""
        maps: list[Tensor] = self.net(pixels)
        return maps

    def classifier(self) -> nn.Linear:
        """A new classifier of ImageNet on the last map, which releases declare, count and never use."""
        return nn.Linear(self.channels[-1], CLASSES)
