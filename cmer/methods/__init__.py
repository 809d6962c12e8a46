"""What is trained: one file a system; `build` makes the one that a run names."""

import torch

from cmer.backbones.base import Backbone, Shapes
from cmer.config import FeatureOptions, MethodOptions
from cmer.methods.base import Method
from cmer.registry import METHODS

__all__ = ["build"]


def build(
    name: str,
    options: MethodOptions,
    shapes: Shapes,
    features: FeatureOptions,
    backbone: Backbone | None,
    seed: int,
) -> Method:
    """A new method with weights drawn from `seed`; see `Method` for the arguments."""
    torch.manual_seed(seed)
    method: Method = METHODS.get(name)(shapes, options, features, backbone)
    return method
