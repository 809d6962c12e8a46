"""From frozen pooled embeddings to the shared space: nothing on aligned towers, a trained head on others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Shapes
from cmer.methods.layers.settings import Projection

MAX_SCALE = 100.0
"""CLIP's upper bound of 1 / temperature."""
VARIANCE_FLOOR = 1e-3
"""Added to a channel's variance before it is standardised."""


class Heads(nn.Module):
    """Both towers' way into the shared space, and the temperature.

    On an aligned backbone the embedding itself, normalised, and the temperature that came with it, frozen. On towers
    without a shared space a trained projection each, on the standardised embedding, and a trained temperature.
    """

    def __init__(self, shapes: Shapes, projection: Projection) -> None:
        super().__init__()
        self.dim = shapes.image_dim if shapes.aligned else projection.dim
        self.image: nn.Module = nn.Identity() if shapes.aligned else _head(shapes.image_dim, projection)
        self.text: nn.Module = nn.Identity() if shapes.aligned else _head(shapes.text_dim, projection)
        self.log_scale = nn.Parameter(torch.tensor(math.log(shapes.logit_scale)), requires_grad=not shapes.aligned)

    def images(self, pooled: Tensor) -> Tensor:
        """Unit embeddings [B, dim]."""
        return F.normalize(self.image(pooled), dim=-1)

    def texts(self, pooled: Tensor) -> Tensor:
        """Unit embeddings [B, dim]."""
        return F.normalize(self.text(pooled), dim=-1)

    def scale(self) -> Tensor:
        """1 / temperature, at most 100; the parameter itself is bounded, so that it can come back down."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_SCALE))
        return self.log_scale.exp()


def _head(width: int, projection: Projection) -> nn.Module:
    # Standardised by the running mean and variance of training. The floor keeps nearly constant channels small:
    # MiniLM has three, which divided by their own deviation would be noise of unit size.
    norm = nn.BatchNorm1d(width, eps=VARIANCE_FLOOR, affine=False)
    if projection.kind == "linear":
        return nn.Sequential(norm, nn.Dropout(projection.dropout), nn.Linear(width, projection.dim))
    return nn.Sequential(
        norm,
        nn.Dropout(projection.dropout),
        nn.Linear(width, projection.hidden),
        nn.GELU(),
        nn.Dropout(projection.dropout),
        nn.Linear(projection.hidden, projection.dim),
    )
