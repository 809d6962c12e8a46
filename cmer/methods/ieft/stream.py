"""The single stream of IEFT: ViLT's blocks on words and patches, with enhancements of the patches between them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cmer.methods.ieft.options import MAPS_HEADS, IeftOptions
from cmer.methods.layers.attention import attend

ENHANCED = (1, 2, 3)
"""Blocks before which the patches are enhanced."""
EXPANSION = 2.66
"""Channels of the gated convolutions, relative to the width."""
EPS = 1e-6


def pointwise(given: int, width: int) -> nn.Conv2d:
    """A 1 x 1 convolution without bias."""
    return nn.Conv2d(given, width, 1, bias=False)


def depthwise(width: int) -> nn.Conv2d:
    """A 3 x 3 convolution of each channel by itself, without bias."""
    return nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)


class Enhancement(nn.Module):
    """A transformer block across channels, then y = x + W_o (GELU(D_1 W_1 LN x) * D_2 W_2 LN x) on the map of patches.

    The block sees the transposed map: a token is a channel, its features are that channel's values at all patches. D
    are depth-wise 3 x 3 convolutions, W 1 x 1 convolutions to 2.66 times the width, rounded down.
    """

    def __init__(self, options: IeftOptions) -> None:
        super().__init__()
        width, hidden = options.width, int(options.width * EXPANSION)
        drops = {
            "proj_drop": options.dropout,
            "attn_drop": options.dropout,
            "norm_layer": partial(nn.LayerNorm, eps=EPS),
        }
        self.channels = Block(options.patches, options.heads, qkv_bias=True, **drops)
        self.norm, self.side = nn.LayerNorm(width), options.image_size // options.patch_size
        self.expand, self.mix = pointwise(width, 2 * hidden), depthwise(2 * hidden)
        self.reduce = pointwise(hidden, width)
        if options.declare_unused:
            self.unused = nn.ModuleList([nn.LayerNorm(width), _attention(width), _attention(width)])
            self.unused.append(nn.ModuleList([pointwise(width, width), depthwise(width)]))  # the second one's gate

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [P, N, d] → [P, N, d]."""
        patches = self.channels(patches.transpose(1, 2)).transpose(1, 2)
        grid = self.norm(patches).transpose(1, 2).unflatten(2, (self.side, self.side))
        gate, value = self.mix(self.expand(grid)).chunk(2, dim=1)
        enhanced: Tensor = self.reduce(F.gelu(gate) * value)
        return patches + enhanced.flatten(2).transpose(1, 2)


def _attention(width: int) -> nn.ModuleList:
    """The parameters of an attention across channels: a temperature per head, queries to values, and the output."""
    temperature = nn.ParameterList([torch.ones(MAPS_HEADS, 1, 1)])
    return nn.ModuleList([temperature, pointwise(width, 3 * width), depthwise(3 * width), pointwise(width, width)])


class Stream(nn.Module):
    """The tanh-pooled state of [CLS] of pairs, each a sequence of word pieces, a class token and patches.

    Args:
        vilt: transformers' ViLT, of which blocks, last LayerNorm and pooler are taken.
        options: sizes.
    """

    def __init__(self, vilt: Any, options: IeftOptions) -> None:
        super().__init__()
        self.blocks, self.norm, self.pooler = vilt.encoder.layer, vilt.layernorm, vilt.pooler
        self.enhancements = nn.ModuleList(Enhancement(options) for _ in ENHANCED)

    def forward(self, words: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Words [P, L, d] and their mask [P, L], class token and patches [P, 1 + N, d] of pairs → [P, d]."""
        length, last = words.shape[1], len(self.blocks) - 1
        x, seen = torch.cat([words, image], dim=1), F.pad(mask, (0, image.shape[1]), value=True)
        for index, block in enumerate(self.blocks):
            if index in ENHANCED:
                patches = self.enhancements[ENHANCED.index(index)](x[:, length + 1 :])
                x = torch.cat([x[:, : length + 1], patches], dim=1)
            x = _block(block, x, seen, slice(0, 1) if index == last else slice(None))
        pooled: Tensor = self.pooler(self.norm(x))
        return pooled


def _block(block: Any, x: Tensor, mask: Tensor, kept: slice) -> Tensor:
    """A pre-norm transformer block of ViLT at the `kept` positions, of which [CLS] is the first."""
    attention, given = block.attention.attention, block.layernorm_before(x)
    queries, keys, values = attention.query(given[:, kept]), attention.key(given), attention.value(given)
    seen = block.attention.output(attend(attention, queries, keys, values, mask), x)
    x = x[:, kept] + seen
    output: Tensor = block.output(block.intermediate(block.layernorm_after(x)), x)
    return output
