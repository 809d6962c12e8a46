"""Items, what a method encodes: trees of tensors. Ragged ones are padded here alone, wherever they meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

Items = Any
"""A tree (tuple, list or dict) of tensors that share their first dimension, or one such tensor.

A tensor may be ragged: [n, L, ...], L being the longest of these n items. Its padding is zero, and false in the mask
[n, L] that a method of ragged items puts beside it in the tree.
"""


def count_items(items: Items) -> int:
    """Number of items, n."""
    return len(tree_flatten(items)[0][0])


def select(items: Items, index: Tensor | slice) -> Items:
    """Items `index` of the tree."""
    return tree_map(lambda tensor: tensor[index], items)


def concatenate(parts: Sequence[Items]) -> Items:
    """One tree of the items of all parts, ragged tensors padded to the longest of all."""
    leaves, structures = zip(*(tree_flatten(part) for part in parts), strict=True)
    joined = [torch.cat(_pad_alike(tensors)) for tensors in zip(*leaves, strict=True)]
    return tree_unflatten(joined, structures[0])


def _pad_alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    if tensors[0].ndim < 2:
        return list(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    return [pad_to(tensor, longest) for tensor in tensors]


def pad_to(tensor: Tensor, length: int) -> Tensor:
    """[n, L, ...] → [n, length, ...], zero or false beyond L."""
    missing = length - tensor.shape[1]
    return F.pad(tensor, (*(0, 0) * (tensor.ndim - 2), 0, missing)) if missing else tensor


def full_precision(items: Items) -> Items:
    """The same tree with float32 in place of bfloat16, for the losses."""
    return tree_map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, items)


def detached(items: Items) -> Items:
    """The same tree without gradients."""
    return tree_map(lambda tensor: tensor.detach(), items)
