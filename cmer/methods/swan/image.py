"""The image tower of SWAN: global features of three strides, local ones of the stem."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOCAL = ((1, 32), (3, 32), (5, 64))
"""Kernel, which is also the stride, and output channels of the local convolutions."""
SIDE = 16
"""Side of the maps that become local tokens."""
HEADS = 8


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=kernel, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class GlobalFeatures(nn.Module):
    """MLP(mean(ReLU(BN(conv(cat of three maps)))), with all maps brought to stride 16 by 1 x 1 convolutions.

    Args:
        channels: channels of the maps at strides 8, 16 and 32.
        dim: width of the output.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.fine = nn.Conv2d(fine, dim, 1, stride=2)
        self.middle, self.coarse = nn.Conv2d(middle, dim, 1), nn.Conv2d(coarse, 2 * dim, 1)
        self.fuse = _convolution(4 * dim, dim, 1)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Dropout(0.2), nn.Linear(2 * dim, dim))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, S / stride, S / stride] → [B, dim]."""
        fine, middle, coarse = maps
        enlarged = F.interpolate(self.coarse(coarse), scale_factor=2.0)
        x = torch.cat([self.fine(fine), self.middle(middle), enlarged], dim=1)
        output: Tensor = self.mlp(self.fuse(x).mean(dim=(2, 3)))
        return output


class LocalFeatures(nn.Module):
    """Channels of the stem as tokens, which attend to each other; their weighted sum.

    Three convolutions make 128 maps of 16 x 16 positions, each of which is a token. The release multiplies a transposed
    weight [d, 128] with the tokens [128, d] and takes the mean of the d rows: the sum of the tokens, each times the
    mean of its row of the weight, as here.

    Args:
        channels: channels of the stem.
        dim: width d.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.filter = _convolution(channels, LOCAL[0][1], 1)
        self.scales = nn.ModuleList(_convolution(LOCAL[0][1], outputs, kernel) for kernel, outputs in LOCAL)
        self.tokens = nn.Sequential(nn.Linear(SIDE**2, dim), nn.ReLU(), nn.Dropout(0.1))
        self.attention = nn.TransformerEncoderLayer(dim, HEADS, 2 * dim, 0.1, "gelu", batch_first=True)
        self.weight = nn.Parameter(torch.randn(sum(outputs for _, outputs in LOCAL), dim))

    def forward(self, stem: Tensor) -> Tensor:
        """The stem's map at stride 4 [B, C, S / 4, S / 4] → [B, d]."""
        x = self.filter(stem)
        maps = torch.cat([F.adaptive_avg_pool2d(scale(x), SIDE) for scale in self.scales], dim=1)
        tokens = self.attention(self.tokens(maps.flatten(2)))
        output: Tensor = torch.einsum("n,bnd->bd", self.weight.mean(dim=1), tokens)
        return output


class SwanImage(nn.Module):
    """v = W_2 ReLU(W_1 [local; global] + b_1) + b_2.

    Args:
        channels: channels of the maps at strides 2, 4, 8, 16 and 32; the first is that of the stem.
        dim: width of v.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.global_features, self.local_features = GlobalFeatures(channels[2:], dim), LocalFeatures(channels[0], dim)
        self.fuse = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The five maps [B, C, S / stride, S / stride] → [B, dim]."""
        stem = F.max_pool2d(maps[0], 3, stride=2, padding=1)
        output: Tensor = self.fuse(torch.cat([self.local_features(stem), self.global_features(maps[2:])], dim=1))
        return output
