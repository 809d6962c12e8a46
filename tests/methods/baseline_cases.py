"""Systems that train within the towers, built on small towers."""

import torch

from cmer.backbones.build import build as build_backbone
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.registry import METHOD_OPTIONS

TEXTS = ["a red plane", "two boats at a pier", "a pond", "many dense trees"]


def tower_of(kind):
    if kind == "tiny":
        return build_backbone(TinyOptions(kind="tiny", printed="tiny"))
    return build_backbone(LiteOptions(kind="lite", printed="lite", size=64))


def baseline(name, kind="tiny", **options):
    tower = tower_of(kind)
    given = METHOD_OPTIONS.get(name)(**options)
    return build(name, given, Context(tower.shapes, FeatureOptions(), tower, [], 0))


def pixels_of(method):
    torch.manual_seed(3)
    return torch.randn(4, 3, method.backbone.preprocess.size, method.backbone.preprocess.size)


def meta_count(model, name, **options):
    with torch.device("meta"):
        tower = build_backbone(OpenClipOptions(kind="open_clip", model=model, printed=model))
        context = Context(tower.shapes, FeatureOptions(), tower, [], 0)
        return build(name, METHOD_OPTIONS.get(name)(**options), context).count()
