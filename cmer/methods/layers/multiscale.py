"""Visual attention over maps of several strides, which AMFMN and MCRN share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCED = 3
"""Channels of the reduced maps."""


class MultiscaleAttention(nn.Module):
    """v = (W mean(f4) + b) ⊙ sigmoid(W_a a + b_a), where a is a gated map of all scales (AMFMN's visual branch).

    f1 to f4 are the maps at strides 4 to 32. low, a 3 x 3 convolution of stride 4 on cat(f1, up(f2)), and high, a 1 x 1
    convolution on cat(f3, up(f4)), have 3 channels each at stride 16. With x = cat(low, high) + the mean of high over
    its channels, a = conv(x) ⊙ sigmoid(conv'(x)), as a vector, where both convolutions are 1 x 1 to one channel.

    Args:
        channels: channels of f1 to f4.
        size: side of the image, pixels.
        dim: width of v.
    """

    def __init__(self, channels: Sequence[int], size: int, dim: int) -> None:
        super().__init__()
        f1, f2, f3, f4 = channels
        self.low = nn.Conv2d(f1 + f2, REDUCED, 3, stride=4)
        self.high = nn.Conv2d(f3 + f4, REDUCED, 1)
        self.main, self.gate = nn.Conv2d(2 * REDUCED, 1, 1), nn.Conv2d(2 * REDUCED, 1, 1)
        self.pooled = nn.Linear(f4, dim)
        self.attention = nn.Linear((size // 16) ** 2, dim)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps f1 to f4 [B, C, S / stride, S / stride] → [B, dim]."""
        f1, f2, f3, f4 = maps
        low = self.low(torch.cat([f1, F.interpolate(f2, scale_factor=2.0)], dim=1))
        high = self.high(torch.cat([f3, F.interpolate(f4, scale_factor=2.0)], dim=1))
        x = torch.cat([low, high], dim=1) + high.mean(dim=1, keepdim=True)
        attended = (self.main(x) * self.gate(x).sigmoid()).flatten(1)
        output: Tensor = self.pooled(f4.mean(dim=(2, 3))) * self.attention(attended).sigmoid()
        return output
