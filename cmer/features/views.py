"""Dihedral views: overhead images have no preferred orientation, so rotated and mirrored views are as valid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def dihedral(pixels: Tensor, view: int) -> Tensor:
    """View 0-7 of pixels [..., H, W]: rotated `view % 4` times by 90 degrees, then mirrored for views 4-7."""
    turned = torch.rot90(pixels, view % 4, dims=(-2, -1))
    return turned.flip(-1) if view >= 4 else turned


def dihedral_each(pixels: Tensor, views: np.ndarray) -> Tensor:
    """The given view of each image of [B, 3, H, W]."""
    return torch.stack([dihedral(image, int(view)) for image, view in zip(pixels, views, strict=True)])
