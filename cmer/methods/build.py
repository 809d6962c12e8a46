"""Construction of methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cmer.backbones.base import Backbone
from cmer.backbones.build import resolve_blocks
from cmer.config.backbones import FeatureOptions
from cmer.config.methods import MethodOptions
from cmer.methods.base import Context, Method
from cmer.methods.layers.ensemble import Ensemble
from cmer.methods.layers.settings import MemberOptions
from cmer.registry import METHODS


def build(name: str, options: MethodOptions, context: Context) -> Method:
    """Build a method, or an ensemble of its copies, with weights drawn from the context's seed.

    Parameters in no parameter group are frozen.

    Raises:
        UserError: the method does not support the backbone.
    """
    torch.manual_seed(context.seed)
    kind = METHODS.get(name)
    method: Method = (
        Ensemble(options, context, [kind(options, context) for _ in range(options.members)])
        if isinstance(options, MemberOptions) and options.members > 1
        else kind(options, context)
    )
    for parameter_name, parameter in method.named_parameters():
        if method.group_of(parameter_name) is None:
            parameter.requires_grad_(False)
    return method


def context_of(
    options: MethodOptions,
    backbone: Backbone | None,
    features: FeatureOptions,
    captions: Sequence[str],
    seed: int,
    gallery: Sequence[str] = (),
) -> Context:
    """The context of a method, with its backbone if it has one.

    Raises:
        UserError: `features` names a block that the backbone lacks.
    """
    if backbone is None:
        return Context(None, features, None, captions, seed, gallery)
    given = backbone if options.runs_backbone else None
    return Context(backbone.shapes, resolve_blocks(features, backbone), given, captions, seed, gallery)
