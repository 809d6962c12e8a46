"""Scores of methods that need a forward pass per pair of an image and a text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cmer.methods.items import Items, count_items

Match = Callable[[Items, Items, Tensor, Tensor], Tensor]
"""(images, texts, image_rows [P], text_rows [P]) → scores [P] of the pairs."""


def score_pairs(match: Match, images: Items, texts: Items) -> Tensor:
    """Scores [n, m] of all pairs of n images and m texts, whose padding is cut to the longest of these texts.

    Args:
        match: scores of given pairs.
        images: items of images.
        texts: items of texts: a mapping of tensors [m, L, ...], of which `mask` is true where a token counts.
    """
    n, m = count_items(images), count_items(texts)
    pairs = torch.arange(n * m, device=texts["mask"].device)
    length = int(texts["mask"].sum(dim=1).max())
    trimmed = {name: tensor[:, :length] for name, tensor in texts.items()}
    return match(images, trimmed, pairs // m, pairs % m).view(n, m)
