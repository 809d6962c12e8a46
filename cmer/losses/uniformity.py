"""Uniformity of embeddings on the hypersphere."""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 2.0


def uniformity(embeddings: Tensor) -> Tensor:
    """Mean of exp(-2 |x_i - x_j|²) over the pairs i ≠ j (Wang and Isola 2020, without the logarithm).

    It is small where embeddings spread over the hypersphere.

    Args:
        embeddings: unit vectors [B, e], B at least 2.
    """
    squares = (2 - 2 * embeddings @ embeddings.T).clamp(min=0)
    others = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    return torch.exp(-SHARPNESS * squares)[others].mean()
