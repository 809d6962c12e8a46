"""Parts of open_clip's residual blocks that are replaced, so that they cost the same for every method."""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from cmer.backbones.attention import SelfAttention

SLOPE = 1.702


class LeanQuickGELU(nn.Module):
    """x sigmoid(1.702 x), computed as SiLU(1.702 x) / 1.702.

    For the backward pass this keeps one tensor of the size of x, where open_clip's form keeps two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return F.silu(SLOPE * x) / SLOPE


def replace_parts(model: nn.Module) -> None:
    """Give all blocks `SelfAttention` and, if they compute QuickGELU, `LeanQuickGELU`, in place.

    Outputs are the same up to rounding, and parameters keep their names.
    """
    for block in model.modules():
        if isinstance(block, ResidualAttentionBlock):
            block.attn = SelfAttention(block.attn)
            if isinstance(block.mlp.gelu, QuickGELU):
                block.mlp.gelu = LeanQuickGELU()
