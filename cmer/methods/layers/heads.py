"""Heads from pooled embeddings into the shared space: the identity on aligned towers, trained heads on others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Shapes
from cmer.methods.layers.settings import Projection

MAX_SCALE = 100.0
"""CLIP's upper limit of 1 / temperature."""
VARIANCE_FLOOR = 1e-3
"""Added to a channel's variance when the channel is standardised."""


def unit(x: Tensor) -> Tensor:
    """X / |x| in float32: rounded to bfloat16, unit vectors have norms between 0.998 and 1.003."""
    return F.normalize(x.float(), dim=-1)


def limited_scale(log_scale: Tensor) -> Tensor:
    """1 / temperature, at most 100; the parameter itself is clamped, so that it can decrease again."""
    with torch.no_grad():
        log_scale.clamp_(max=math.log(MAX_SCALE))
    return log_scale.exp()


class Heads(nn.Module):
    """Heads of both towers into the shared space, and the temperature.

    On an aligned backbone, the heads only normalise the embedding, and the temperature is the backbone's, frozen. On
    towers without a shared space, each head is a trained projection of the standardised embedding, and the temperature
    is trained.
    """

    def __init__(self, shapes: Shapes, projection: Projection) -> None:
        super().__init__()
        self.dim = shapes.image_dim if shapes.aligned else projection.dim
        self.image: nn.Module = nn.Identity() if shapes.aligned else _head(shapes.image_dim, projection)
        self.text: nn.Module = nn.Identity() if shapes.aligned else _head(shapes.text_dim, projection)
        self.log_scale = nn.Parameter(torch.tensor(math.log(shapes.logit_scale)), requires_grad=not shapes.aligned)

    def images(self, pooled: Tensor) -> Tensor:
        """Unit embeddings [B, dim]."""
        return unit(self.image(pooled))

    def texts(self, pooled: Tensor) -> Tensor:
        """Unit embeddings [B, dim]."""
        return unit(self.text(pooled))

    def scale(self) -> Tensor:
        """1 / temperature, at most 100."""
        return limited_scale(self.log_scale)


def _head(width: int, projection: Projection) -> nn.Module:
    # Standardised with the running mean and variance of training. The floor keeps nearly constant channels small:
    # MiniLM has three; divided by their own standard deviation, they would be noise with unit variance.
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
