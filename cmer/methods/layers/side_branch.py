"""CMER's side branch: a light network beside a frozen tower, fed by the outputs of its blocks (Eq. 10-13)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import BlockSpec, Features
from cmer.methods.layers.dropout import Dropout, DropPath

IMAGES_A_PART = 64
"""Images per pass on a CPU: chunks that fit its caches are twice as fast as 512 images at once."""


class FocusAdapter(nn.Module):
    """Attention within small regions, then a linear map, each with a residual (Eq. 11-13).

    Each head uses one projection as query, key and value, which is consistent with the paper's parameter counts:
    2 h^2 + 6 h parameters, and a learned s^2 x s^2 bias per head if regions are squares of side s. W_d is initialised
    to zero, so the map adds nothing at first.

    Args:
        hidden: width h.
        heads: number of attention heads.
        field: side s of a region in patches; 0 for text, where the region is the whole caption.
    """

    def __init__(self, hidden: int, heads: int, field: int) -> None:
        super().__init__()
        self.heads, self.field = heads, field
        self.norm_attention = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, hidden)
        self.norm_output = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, hidden)
        self.bias = nn.Parameter(torch.zeros(heads, field**2, field**2)) if field else None
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, u: Tensor, mask: Tensor | None, has_cls: bool) -> Tensor:
        """The next f, with the shape of u; the class token is excluded from the attention.

        Args:
            u: image tokens [B, tokens, h], or all real text tokens of the batch [n, h].
            mask: [B, longest], true at the n real text tokens; None for images.
            has_cls: whether the first token is a class token.
        """
        p = self.head(self.norm_attention(u))
        if mask is not None:
            attended = self.attend(pad(p, mask), mask[:, None, None, :])[mask]
        else:
            patches = p[:, int(has_cls) :]
            grid = int(patches.shape[1] ** 0.5)
            regions, real = to_regions(patches, grid, self.field)
            attended = from_regions(self.attend(regions, real), grid, self.field)
            attended = F.pad(attended, (0, 0, int(has_cls), 0))
        f = attended + u
        return torch.as_tensor(self.output(self.norm_output(f)) + f)

    def attend(self, p: Tensor, mask: Tensor | None) -> Tensor:
        """Tied attention within each region of [regions, tokens, h]; `mask` [regions, 1, 1, tokens]: real keys.

        In float32 on a CPU, where the backward pass in bfloat16 took four to six times as long.
        """
        p = p if p.is_cuda else p.float()
        heads = p.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        bias: Tensor | None = self.bias
        if mask is not None:
            keys = torch.zeros(mask.shape, device=p.device, dtype=p.dtype).masked_fill(~mask, float("-inf"))
            bias = keys if bias is None else bias + keys
        with nullcontext() if p.is_cuda else torch.autocast("cpu", enabled=False):
            attended: Tensor = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias).transpose(1, 2)
        return attended.flatten(2)


def pad(tokens: Tensor, mask: Tensor) -> Tensor:
    """Pad real tokens [n, h] to [B, longest, h], with zeros where `mask` [B, longest] is false."""
    real = mask.flatten().nonzero().squeeze(1)  # whole rows: a sixth of the time of `masked_scatter`
    padded = tokens.new_zeros(mask.numel(), tokens.shape[-1]).index_copy(0, real, tokens)
    return padded.view(*mask.shape, -1)


def to_regions(patches: Tensor, grid: int, field: int) -> tuple[Tensor, Tensor | None]:
    """Cut [B, grid^2, h] into squares [B * regions, field^2, h], after padding the grid if squares do not tile it.

    Returns:
        The regions, and a mask [B * regions, 1, 1, field^2] that is false on padding (None without padding).
    """
    side = -(-grid // field)
    extra = side * field - grid
    square = F.pad(patches.unflatten(1, (grid, grid)), (0, 0, 0, extra, 0, extra))
    regions = _cut(square, side, field)
    if not extra:
        return regions, None
    real = F.pad(torch.ones(1, grid, grid, 1, dtype=torch.bool, device=patches.device), (0, 0, 0, extra, 0, extra))
    mask = _cut(real, side, field).squeeze(-1)[:, None, None, :]
    return regions, mask.repeat(patches.shape[0], 1, 1, 1)


def _cut(square: Tensor, side: int, field: int) -> Tensor:
    cells = square.unflatten(2, (side, field)).unflatten(1, (side, field))  # [B, side, field, side, field, h]
    regions: Tensor = cells.transpose(2, 3).flatten(3, 4).flatten(0, 2)
    return regions


def from_regions(regions: Tensor, grid: int, field: int) -> Tensor:
    """Invert `to_regions`: [B * regions, field^2, h] → [B, grid^2, h], without padding."""
    side = -(-grid // field)
    cells = regions.unflatten(0, (-1, side, side)).unflatten(3, (field, field)).transpose(2, 3)
    patches: Tensor = cells.flatten(3, 4).flatten(1, 2)[:, :grid, :grid].flatten(1, 2)
    return patches


class SideBranch(nn.Module):
    """f_d = adapter_d(v_d W_down + b + f_{d-1}) over the blocks, followed by pooling, W_up and a LayerNorm.

    W_down is shared among blocks of equal width. Where the grid halves, f is averaged over 2 x 2 patches. For texts,
    only real tokens are computed; they are padded only for the attention. The LayerNorm's gain is initialised to zero,
    so the branch adds nothing at first and training starts from the frozen tower.

    Args:
        specs: specs of all blocks of the tower.
        blocks: the blocks that feed the branch, with one adapter each.
        hidden: width h of the branch.
        heads: number of attention heads.
        field: side of a region in patches; 0 on a text tower.
        dim: dimension of the embedding that the output is added to.
        dropout: dropout on the blocks' outputs.
        drop_path: share of items whose branch is dropped in training; the remaining ones are scaled up accordingly.
    """

    def __init__(
        self,
        specs: Sequence[BlockSpec],
        blocks: Sequence[int],
        hidden: int,
        heads: int,
        field: int,
        dim: int,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.specs, self.blocks = list(specs), list(blocks)
        widths = sorted({specs[block].width for block in blocks})
        down = {str(width): nn.Linear(width, hidden) for width in widths}
        for linear in down.values():
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.down = nn.ModuleDict(down)
        self.adapters = nn.ModuleList(FocusAdapter(hidden, heads, field) for _ in blocks)
        self.up = nn.Linear(hidden, dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Features) -> Tensor:
        """The output q [B, dim], to be added to the unit embedding, from the block outputs."""
        return torch.as_tensor(self.drop_path(features, self._outputs))

    def _outputs(self, features: Features) -> Tensor:
        """The branch of all items, in chunks of images on a CPU."""
        if features.mask is not None or features.pooled.is_cuda or len(features.pooled) <= IMAGES_A_PART:
            return self._branch(features)
        parts = {block: x.split(IMAGES_A_PART) for block, x in features.blocks.items()}
        count = len(next(iter(parts.values())))
        pieces = [Features(features.pooled, {block: part[i] for block, part in parts.items()}) for i in range(count)]
        return torch.cat([self._branch(piece) for piece in pieces])

    def _branch(self, features: Features) -> Tensor:
        f: Tensor | None = None
        before = self.specs[self.blocks[0]]
        for block, adapter in zip(self.blocks, self.adapters, strict=True):
            spec = self.specs[block]
            x = self.dropout(features.blocks[block])
            u = self.down[str(spec.width)](x if features.mask is None else x[features.mask])
            if f is not None:
                u = u + _shrink(f, before, spec)
            f, before = adapter(u, features.mask, spec.has_cls), spec
        assert f is not None
        return torch.as_tensor(self.norm(self.up(_pool(f, features.mask, before.has_cls))))


def _shrink(f: Tensor, before: BlockSpec, spec: BlockSpec) -> Tensor:
    """Average f over squares of patches if the grid of the next block is coarser."""
    if before.grid == spec.grid:
        return f
    cls, patches = f[:, : int(before.has_cls)], f[:, int(before.has_cls) :]
    square = patches.transpose(1, 2).unflatten(2, (before.grid, before.grid))
    pooled = F.adaptive_avg_pool2d(square, spec.grid).flatten(2).transpose(1, 2)
    return torch.cat([cls, pooled], dim=1)


def _pool(f: Tensor, mask: Tensor | None, has_cls: bool) -> Tensor:
    """Mean over the patches plus the class token; for texts, mean over the real tokens.

    With the class token alone, the region attention would have no effect on the output.
    """
    if mask is not None:
        return pad(f, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    patches = f[:, int(has_cls) :].mean(dim=1)
    return patches + f[:, 0] if has_cls else patches
