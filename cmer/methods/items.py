"""Items, the encoded images or texts of a method, as trees of tensors; padding of ragged items for all uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

Items = Any
"""A tree (tuple, list or dict) of tensors with the same first dimension, or a single tensor.

A tensor may be ragged: [n, L, ...], where L is the length of the longest of the n items. Shorter items are padded with
zeros; a method with ragged items adds a mask [n, L] to the tree, which is false on padding.
"""


def count_items(items: Items) -> int:
    """Number of items, n."""
    return len(tree_flatten(items)[0][0])


def select(items: Items, index: Tensor | slice) -> Items:
    """The items at `index`, as a tree."""
    return tree_map(lambda tensor: tensor[index], items)


def concatenate(parts: Sequence[Items]) -> Items:
    """Concatenate the items of all parts into one tree; ragged tensors are padded to the longest item."""
    leaves, structures = zip(*(tree_flatten(part) for part in parts), strict=True)
    joined = [torch.cat(_pad_alike(tensors)) for tensors in zip(*leaves, strict=True)]
    return tree_unflatten(joined, structures[0])


def _pad_alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    if tensors[0].ndim < 2:
        return list(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    return [pad_to(tensor, longest) for tensor in tensors]


def pad_to(tensor: Tensor, length: int) -> Tensor:
    """[n, L, ...] → [n, length, ...], padded with zero or false."""
    missing = length - tensor.shape[1]
    return F.pad(tensor, (*(0, 0) * (tensor.ndim - 2), 0, missing)) if missing else tensor


def full_precision(items: Items) -> Items:
    """The tree with floating-point tensors converted to float32, for the losses."""
    return tree_map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, items)


def detached(items: Items) -> Items:
    """The tree with all tensors detached."""
    return tree_map(lambda tensor: tensor.detach(), items)
