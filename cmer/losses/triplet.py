"""Hinges of a batch of scores, of which triplet losses are made."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.2
"""Margin m of AMFMN, HVSA, SWAN and MCRN."""


def hinges(scores: Tensor, positives: Tensor, margin: float = MARGIN) -> Tensor:
    """[m - s_ii + s_ij]₊ and [m - s_jj + s_ij]₊: every negative against the matching pair of its image and its text.

    Args:
        scores: [B, B] of images and texts; text i matches image i.
        positives: [B, B], true if text j also matches image i; such pairs are no negatives.
        margin: m.

    Returns:
        [2, B, B], zero at the positives.
    """
    matching = scores.diagonal()
    each = torch.stack([scores - matching[:, None], scores - matching])
    return (margin + each).clamp(min=0).masked_fill(positives, 0)
