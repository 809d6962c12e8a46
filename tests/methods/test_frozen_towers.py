"""Frozen towers with dropout and BatchNorm: in training mode either would show."""

import numpy as np
import pytest
import torch
from torch import nn

from cmer.backbones.build import build as build_backbone
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.features.inputs import Inputs
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.registry import METHOD_OPTIONS
from cmer.retrieval.embed import embeddings

TEXTS = ["a red plane", "two boats at a pier", "a pond"]
METHODS = {
    "clip_adapter": {},
    "clip_bitfit": {},
    "clip_lora": {},
    "cmer": {"hidden": 12, "heads": 3},
    "cross_modal_adapter": {},
    "pe_rsitr": {"dropout": 0.0, "input_dropout": 0.0},
    "single_language": {},
}


class Uneven(nn.Module):
    """Dropout and BatchNorm behind a module."""

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner, self.norm, self.dropout = inner, nn.BatchNorm1d(channels), nn.Dropout(0.5)

    def forward(self, x):
        y = self.inner(x)
        return self.dropout(self.norm(y.transpose(1, 2)).transpose(1, 2))


def uneven_tower():
    tower = build_backbone(TinyOptions(kind="tiny", printed="tiny"))
    tower.model.visual.patch_dropout = Uneven(tower.model.visual.patch_dropout, 64)
    tower.model.token_embedding = Uneven(tower.model.token_embedding, 48)
    return tower.freeze()


def method_of(name, **options):
    tower = uneven_tower()
    given = METHOD_OPTIONS.get(name)(**METHODS[name] | options)
    features = FeatureOptions(blocks=[0, 1], text_blocks=[0, 1])
    return build(name, given, Context(tower.shapes, features, tower, [], 0)), tower


def encoded(method, tower):
    """The image and text embeddings, the first ones of a method with two passes."""
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    images = method.encode_images(tower.encode_images(pixels, [0, 1]) if method.image_blocks else pixels)
    texts = method.encode_texts(tower.tokenize(TEXTS))
    return [items[0] if isinstance(items, tuple) else items for items in (images, texts)]


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_training_mode_reaches_no_part_of_a_frozen_tower(name) -> None:
    method, tower = method_of(name)
    tower.model.visual.patch_dropout.train()  # what a caller may have left behind
    expected = encoded(method.eval(), tower)
    statistics = {key: buffer.clone() for key, buffer in tower.named_buffers()}
    assert method.train().training and not any(module.training for module in tower.modules())
    for found in (encoded(method, tower), encoded(method, tower)):
        assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(found, expected, strict=True))
    assert all(torch.equal(buffer, statistics[key]) for key, buffer in tower.named_buffers())
    assert not any(key.endswith("running_mean") for key in method.trained())


@torch.no_grad()
def test_the_tower_of_this_file_would_show_training_mode() -> None:
    method, tower = method_of("clip_bitfit")
    expected = encoded(method.eval(), tower)
    tower.train()
    for mine, theirs in zip(encoded(method, tower), expected, strict=True):
        assert not torch.allclose(mine, theirs, atol=0.1)


@pytest.mark.parametrize("name", ["pe_rsitr", "cmer"])
def test_embeddings_of_a_method_left_in_training_mode_are_those_of_evaluation(name) -> None:
    """With all of its own dropouts on, single items and batches give the same, in every view and protocol."""
    dropouts = {"dropout": 0.5, "input_dropout": 0.5} if name == "pe_rsitr" else {"focus_dropout": 0.5}
    method, tower = method_of(name, **dropouts)
    for parameter in method.trained().values():
        nn.init.normal_(parameter, std=0.3)
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))

    def images(ids, views, training):
        assert not training
        chosen = torch.stack([pixels[i].rot90(int(view), (1, 2)) for i, view in zip(ids, views, strict=True)])
        return tower.encode_images(chosen, [0, 1]) if method.image_blocks else chosen

    def embed(ids, texts):
        method.train()
        queries = {"none": texts, "oracle": texts}
        return embeddings(method, Inputs(images, tower.tokenize), np.array(ids), 2, queries, "float32")

    whole = embed(range(5), TEXTS)
    assert set(whole) == {"images", "texts/none", "texts/oracle", "index/none", "index/oracle"}
    for i in range(5):
        assert torch.allclose(embed([i], TEXTS)["images"][0], whole["images"][i], atol=1e-5)
    for text, row in zip(TEXTS, whole["index/none"], strict=True):
        assert torch.allclose(embed([0], [text])["texts/none"][0], whole["texts/none"][row], atol=1e-5)
    assert torch.equal(whole["texts/none"], whole["texts/oracle"])
