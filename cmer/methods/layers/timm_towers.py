"""Image towers of timm that methods bring along, with weights from a tag or a file."""

from __future__ import annotations

from typing import Any

import timm
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from cmer.backbones.weights import read_state, reading_weights
from cmer.io import expand

TAG = "imagenet"
"""Stands for timm's weights of a model."""


def timm_tower(name: str, weights: str | None, **sizes: Any) -> Any:
    """A model of timm without its classifier.

    Args:
        name: timm's name, with the tag of its ImageNet weights: resnet50.a1_in1k.
        weights: imagenet, a local file in any of the published layouts, or None for random weights.
        sizes: arguments of the model that differ from timm's.

    Raises:
        UserError: the weights cannot be fetched or read, or are another model's.
    """
    with reading_weights(name, local=False):
        tower = timm.create_model(name, pretrained=weights == TAG, num_classes=0, **sizes)
    if weights is not None and weights != TAG:
        file = str(expand(weights))
        state = read_state(file)
        if isinstance(tower, SwinTransformer):
            state = checkpoint_filter_fn(state, tower)  # Swin's authors number the stages' parts otherwise
        classifier = tower.pretrained_cfg["classifier"].partition(".")[0]
        kept = {key: tensor for key, tensor in state.items() if key.partition(".")[0] != classifier}
        with reading_weights(file):
            tower.load_state_dict(kept)
    return tower


class Frozen(nn.Module):
    """A tower that never trains and stays in eval mode; nothing of it is kept for the backward pass."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode, in which BatchNorm keeps its statistics."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The tower's output."""
        output: Tensor = self.tower(x)
        return output
