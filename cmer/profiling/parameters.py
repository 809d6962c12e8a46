"""Counts of trainable parameters, without allocating weights."""

from __future__ import annotations

import torch

from cmer.backbones.build import build as build_backbone
from cmer.config.backbones import named_backbone
from cmer.config.methods import MethodOptions
from cmer.errors import UserError
from cmer.methods.build import build, context_of
from cmer.registry import METHOD_OPTIONS


def count_parameters(backbone: str, method: str) -> int:
    """Trainable parameters of a method with its default settings on a backbone.

    Args:
        backbone: a kind, or a model that a kind provides, such as ViT-B-32.
        method: name of the method.

    Raises:
        UserError: the backbone or the method is unknown, or the method does not support the backbone.
    """
    try:
        options: MethodOptions = METHOD_OPTIONS.get(method)().without_weights()
        towers = named_backbone(backbone)
    except ValueError as error:
        raise UserError(str(error)) from None
    with torch.device("meta"):
        built = None if options.own_towers else build_backbone(towers)
        return build(method, options, context_of(options, built, towers.features, [], seed=0)).count()
