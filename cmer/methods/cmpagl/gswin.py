"""The image tower of CMPAGL: Gswin blocks, in which windows attend to themselves and to one global window."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.methods.cmpagl.options import PATCH, CmpaglOptions
from cmer.methods.layers.attention import split_heads

MLP_RATIO = 4
"""Width of a block's MLP, relative to the block's, as in Swin."""
INIT_STD = 0.02
"""Standard deviation of the initial linear maps and position biases, as in Swin."""


def to_windows(grid: Tensor, side: int) -> Tensor:
    """Partition [B, H, W, C] into windows [B * H/side * W/side, side * side, C], row by row."""
    batch, height, width, channels = grid.shape
    split = grid.view(batch, height // side, side, width // side, side, channels)
    return split.transpose(2, 3).reshape(-1, side * side, channels)


def from_windows(windows: Tensor, side: int, grid: int) -> Tensor:
    """The inverse of `to_windows`: a square map [B, grid, grid, C]."""
    count, channels = grid // side, windows.shape[-1]
    split = windows.view(-1, count, count, side, side, channels)
    return split.transpose(2, 3).reshape(-1, grid, grid, channels)


def shift_mask(grid: int, side: int, shift: int) -> Tensor:
    """Which tokens of a window are neighbours in the map, before it was rolled by `shift`: [windows, side², side²].

    A roll brings opposite borders of the map together; only tokens of the same border may attend to each other (Swin).
    """
    place = torch.arange(grid)
    part = (place >= grid - side).long() + (place >= grid - shift).long()  # of the rolled rows or columns
    region = to_windows((3 * part[:, None] + part)[None, :, :, None], side)
    return region == region.transpose(1, 2)


class WindowAttention(nn.Module):
    """Self-attention within windows, softmax(Q Kᵀ / √d + B) V, where B is a learned bias per relative position (Swin).

    Args:
        width: channels C.
        heads: number of heads.
        grid: side of the map.
        side: side of a window.
        shift: number of rows and columns by which the windows are shifted; 0 for regular windows.
    """

    mask: Tensor | None
    relative: Tensor

    def __init__(self, width: int, heads: int, grid: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.grid, self.side, self.shift = heads, grid, side, shift
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, 2 * side - 1, 2 * side - 1), std=INIT_STD))
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        rows, columns = (place.flatten()[:, None] - place.flatten() + side - 1 for place in (row, column))
        self.register_buffer("relative", rows * (2 * side - 1) + columns, persistent=False)
        self.register_buffer("mask", shift_mask(grid, side, shift) if shift else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] → [B, H, W, C]."""
        rolled = x.roll((-self.shift, -self.shift), dims=(1, 2)) if self.shift else x
        windows = self._attend(to_windows(rolled, self.side))
        grid = from_windows(windows, self.side, self.grid)
        return grid.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else grid

    def _attend(self, windows: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.in_proj(windows).chunk(3, dim=-1))
        bias = self.bias.flatten(1)[:, self.relative].to(q.dtype)  # [heads, side², side²]
        if self.mask is not None:
            masked = bias.masked_fill(~self.mask[:, None], float("-inf"))  # [windows of a map, heads, side², side²]
            bias = masked.repeat(len(windows) // len(masked), 1, 1, 1)
        heads = F.scaled_dot_product_attention(q, k, v, bias)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return output


class GlobalAttention(nn.Module):
    """Global-local cross-attention: queries from the local windows, keys and values from the global window.

    As all windows share the global one, and no position enters, this needs no partition into windows. Queries from the
    local windows let global information flow into the local tokens; the source does not say which side queries.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, glob: Tensor) -> Tensor:
        """[B, H, W, C] and the global window [B, M², C] → [B, H, W, C]."""
        q = split_heads(self.query(x.flatten(1, 2)), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.key_value(glob).chunk(2, dim=-1))
        heads = F.scaled_dot_product_attention(q, k, v)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return output.view(x.shape)


class Branch(nn.Module):
    """One branch of a Gswin block: y = x + MSA(LN x), z = y + MCA(LN y, G); z = y without the global window."""

    def __init__(self, options: CmpaglOptions, stage: int, shift: int) -> None:
        super().__init__()
        width, heads, grid = options.width * 2**stage, options.heads[stage], options.sides[stage]
        self.norm, self.local = nn.LayerNorm(width), WindowAttention(width, heads, grid, options.window, shift)
        self.cross_norm = nn.LayerNorm(width) if options.global_window else None
        self.cross = GlobalAttention(width, heads) if options.global_window else None

    def forward(self, x: Tensor, glob: Tensor | None) -> Tensor:
        """[B, H, W, C] and the global window [B, M², C] → [B, H, W, C]."""
        y: Tensor = x + self.local(self.norm(x))
        if self.cross is None or self.cross_norm is None:
            return y
        output: Tensor = y + self.cross(self.cross_norm(y), glob)
        return output


class GswinBlock(nn.Module):
    """A Gswin block: the mean of a branch on regular windows and one on shifted windows, then x + MLP(LN x).

    Both branches share the global window; their weights are their own. A map of a single window has nothing to shift.
    Mean, separate weights and the place of the MLP are chosen.
    """

    def __init__(self, options: CmpaglOptions, stage: int) -> None:
        super().__init__()
        width, shifts = options.width * 2**stage, options.sides[stage] > options.window
        self.regular = Branch(options, stage, 0)
        self.shifted = Branch(options, stage, options.window // 2 if shifts else 0)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width))

    def forward(self, x: Tensor, glob: Tensor | None) -> Tensor:
        """[B, H, W, C] and the global window [B, M², C] → [B, H, W, C]."""
        x = (self.regular(x, glob) + self.shifted(x, glob)) / 2
        output: Tensor = x + self.mlp(self.norm(x))
        return output


class GlobalWindow(nn.Module):
    """The whole map as one window of M x M tokens: depth-wise convolutions, each followed by 2 x 2 max pooling.

    A map that is a single window has one convolution without pooling. The result is normalised over channels. All of
    this is chosen, after GCViT, which also computes its global window once per stage.
    """

    def __init__(self, width: int, grid: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(max(1, (grid // side).bit_length() - 1)):
            layers.append(nn.Conv2d(width, width, 3, padding=1, groups=width))
            if grid > side:
                layers.append(nn.MaxPool2d(2))
        self.reduce, self.norm = nn.Sequential(*layers), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] → [B, M², C]."""
        reduced: Tensor = self.reduce(x.permute(0, 3, 1, 2))
        output: Tensor = self.norm(reduced.flatten(2).transpose(1, 2))
        return output


class Stage(nn.Module):
    """Gswin blocks on maps of one size, all with the global window of the map that enters the stage."""

    def __init__(self, options: CmpaglOptions, stage: int) -> None:
        super().__init__()
        width, grid = options.width * 2**stage, options.sides[stage]
        self.glob = GlobalWindow(width, grid, options.window) if options.global_window else None
        self.blocks = nn.ModuleList(GswinBlock(options, stage) for _ in range(options.depths[stage]))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] → [B, H, W, C]."""
        glob = None if self.glob is None else self.glob(x)
        for block in self.blocks:
            x = block(x, glob)
        return x


class PatchMerging(nn.Module):
    """2 x 2 neighbours side by side, LayerNorm, and a linear map from 4 C to 2 C without bias (Swin)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] → [B, H/2, W/2, 2 C]."""
        batch, height, width, _ = x.shape
        output: Tensor = self.reduction(self.norm(to_windows(x, 2).flatten(1)))
        return output.view(batch, height // 2, width // 2, -1)


class Gswin(nn.Module):
    """Patch embedding, stages of Gswin blocks with patch merging between them, LayerNorm.

    Attributes:
        width: channels C' of the output.
    """

    def __init__(self, options: CmpaglOptions) -> None:
        super().__init__()
        widths = [options.width * 2**stage for stage in range(len(options.depths))]
        self.width = widths[-1]
        self.patches, self.patch_norm = nn.Conv2d(3, widths[0], PATCH, stride=PATCH), nn.LayerNorm(widths[0])
        self.stages = nn.ModuleList(Stage(options, stage) for stage in range(len(widths)))
        self.merging = nn.ModuleList(PatchMerging(width) for width, _ in pairwise(widths))
        self.norm = nn.LayerNorm(self.width)
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] → tokens F [B, N, C']."""
        x = self.patch_norm(self.patches(pixels).permute(0, 2, 3, 1))
        for index, stage in enumerate(self.stages):
            x = stage(self.merging[index - 1](x) if index else x)
        output: Tensor = self.norm(x).flatten(1, 2)
        return output


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
