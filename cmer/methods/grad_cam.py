"""Grad-CAM: where in an image the score of a matching text comes from (Selvaraju et al. 2017, arXiv 1610.02391)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from math import isqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cmer.backbones.base import Backbone
from cmer.methods.base import Method
from cmer.methods.layers.side_branch import SideBranch

TOWER, BRANCH, BOTH = "image tower", "side branch", "tower and branch"
"""Parts of a method that have a map; the tower's is called `BOTH` where a side branch reads the tower as well."""


def grad_cam(method: Method, backbone: Backbone, pixels: Tensor, texts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores of matching pairs, and a map of each image for each part of the method.

    With activations A [n, c] of n patches and y = S(image, text), the map is ReLU(sum_c a_c A_nc) with a_c = mean_n
    dy/dA_nc, scaled to 0..1. A is the last map of the tower that the pooled embedding is made of, and in the side
    branch the last adapter's normalised input. The tower's map includes what the side branch reads from there on.

    Args:
        method: trained method, in eval mode.
        backbone: its frozen towers.
        pixels: normalised images [B, 3, H, W].
        texts: unit embeddings [B, e] of their captions.

    Returns:
        scores [B], and [B, grid, grid] by part.
    """
    tower = backbone.get_submodule(backbone.attachment_points().image_map)
    branch = getattr(method, "image_branch", None)
    places = {TOWER: tower}
    if isinstance(branch, SideBranch):
        places = {BRANCH: branch.adapters[-1].get_submodule("norm_attention"), BOTH: tower}
    kept: dict[str, Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for part, module in places.items():
            hooks.callback(module.register_forward_hook(_keeping(kept, part)).remove)
        reads_features = method.options.image_input == "features"
        batch = backbone.encode_images(pixels, method.image_blocks) if reads_features else pixels
        scores = (method.encode_images(batch) * texts).sum(dim=-1)
        gradients = torch.autograd.grad(scores.sum(), [kept[part] for part in places])
    found = zip(places, gradients, strict=True)
    return scores.detach(), {part: _map(_grid(kept[part].detach()), _grid(gradient)) for part, gradient in found}


def _keeping(kept: dict[str, Tensor], part: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that keeps a module's output; behind a frozen module, a gradient starts there."""

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        kept[part] = output if output.requires_grad else output.detach().requires_grad_()
        return kept[part]

    return keep


def _grid(x: Tensor) -> Tensor:
    """[B, C, g, g] or [B, tokens, C], with tokens before the patches or without → [B, g, g, C]."""
    if x.ndim == 4:
        return x.permute(0, 2, 3, 1)
    side = isqrt(x.shape[1])
    return torch.as_tensor(x[:, x.shape[1] - side**2 :].unflatten(1, (side, side)))


def _map(activations: Tensor, gradients: Tensor) -> Tensor:
    weights = gradients.mean(dim=(1, 2), keepdim=True)
    found = (weights * activations).sum(dim=-1).relu().float()
    low, high = found.amin(dim=(1, 2), keepdim=True), found.amax(dim=(1, 2), keepdim=True)
    return torch.as_tensor((found - low) / (high - low).clamp(min=1e-12))


@torch.no_grad()
def shuffle_weights(module: nn.Module, seed: int) -> None:
    """Shuffle the values within each weight tensor: weights of the same distribution that have learned nothing.

    A map that does not change shows the image rather than what the model has learned (Adebayo et al. 2018, arXiv
    1810.03292).
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of two maps; 0 if one is constant."""
    ranked = [pd.Series(each.flatten().cpu().numpy()).rank().to_numpy() for each in (one, other)]
    if any(np.ptp(ranks) == 0 for ranks in ranked):
        return 0.0
    return float(np.corrcoef(ranked[0], ranked[1])[0, 1])
