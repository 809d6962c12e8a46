"""Heads of towers without a shared space, and the temperature's bound."""

import math

import pytest
import torch
import torch.nn.functional as F
from naive import linear

from cmer.backbones.base import BlockSpec, Features, Shapes
from cmer.config.backbones import FeatureOptions
from cmer.features.device import autocast
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.layers.heads import Heads
from cmer.methods.layers.settings import Projection
from cmer.registry import METHOD_OPTIONS

APART = {"image_dim": 7, "text_dim": 6, "aligned": False, "logit_scale": 20.0, "blocks": [], "text_blocks": []}
META = PairIds(torch.arange(4), torch.arange(4), torch.zeros(4, dtype=torch.int64))


def probe(**changes):
    context = Context(Shapes(**APART | changes), FeatureOptions(), None, [], 0)
    return build("linear_probe", METHOD_OPTIONS.get("linear_probe")(projection={"dim": 5}), context)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_projects_the_standardised_embedding(kind) -> None:
    heads = Heads(Shapes(**APART), Projection(kind=kind, dim=5, hidden=9, dropout=0.5))
    for head, encode, width in ((heads.image, heads.images, 7), (heads.text, heads.texts, 6)):
        pooled, norm = 3 * torch.randn(4, width) + 1, head[0]
        norm.running_mean.normal_(), norm.running_var.uniform_(0.0, 0.01)
        x = (pooled - norm.running_mean) / torch.sqrt(norm.running_var + 1e-3)
        layers = [layer for layer in head if isinstance(layer, torch.nn.Linear)]
        assert [len(layer.weight) for layer in layers] == ([5] if kind == "linear" else [9, 5])
        y = linear(x, layers[0]) if kind == "linear" else linear(F.gelu(linear(x, layers[0])), layers[1])
        assert not list(norm.parameters())
        heads.eval()
        assert torch.allclose(encode(pooled), y / y.norm(dim=1, keepdim=True), atol=1e-5)
        heads.train()
        assert not torch.allclose(encode(pooled), encode(pooled), atol=1e-2)


@pytest.mark.parametrize(
    ("method", "aligned"),
    [("zero_shot", True), ("linear_probe", True), ("linear_probe", False), ("cmer", True), ("cmer", False)],
)
def test_embeddings_are_unit_vectors_in_every_precision(method, aligned) -> None:
    block = BlockSpec(grid=0, width=6, has_cls=False)
    shapes = Shapes(**APART | {"aligned": aligned, "text_dim": 7, "text_blocks": [block]})
    options = {"text": "side_branch", "focus_adapter": False, "hidden": 8, "heads": 2} if method == "cmer" else {}
    context = Context(shapes, FeatureOptions(text_blocks=[0]), None, [], 0)
    built = build(method, METHOD_OPTIONS.get(method)(**options), context).eval()
    images, texts = (
        Features(torch.randn(64, 7)),
        Features(torch.randn(64, 7), {0: torch.randn(64, 5, 6)}, torch.ones(64, 5) > 0),
    )
    for precision in ("float32", "bfloat16"):
        with autocast(precision):
            found = built.encode_images(images), built.encode_texts(texts)
        for embeddings in found:
            assert embeddings.dtype == torch.float32
            assert torch.allclose(embeddings.norm(dim=1), torch.tensor(1.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dropout_precedes_every_map_of_a_head(kind) -> None:
    heads = Heads(Shapes(**APART), Projection(kind=kind, dim=5, hidden=9, dropout=0.4)).train()
    for layer in heads.image:
        if isinstance(layer, torch.nn.Linear):
            zeros = []
            layer.register_forward_pre_hook(lambda _, args, zeros=zeros: zeros.append((args[0] == 0).float().mean()))
            heads.images(torch.randn(500, 7))
            assert zeros[0].item() == pytest.approx(0.4, abs=0.05)


def test_a_step_cannot_take_the_temperature_over_its_bound() -> None:
    """1 / temperature stays at most 100 in the losses, and falls again as soon as a gradient says so."""
    method = probe(logit_scale=99.0)
    optimizer = torch.optim.SGD([method.heads.log_scale], lr=1.0)
    (-method.heads.scale()).backward()
    optimizer.step()
    assert method.heads.log_scale > math.log(100) + 1
    images, texts = (F.normalize(torch.randn(4, 5), dim=-1) for _ in range(2))
    losses = method.losses(images, texts, META, None, StepInfo(0, 1))
    assert losses["batch"].item() == pytest.approx(contrastive(images, texts, torch.tensor(100.0)).item(), rel=1e-4)
    optimizer.zero_grad()
    method.heads.scale().backward()
    assert method.heads.log_scale.grad.item() == pytest.approx(100, rel=1e-4)
    optimizer.param_groups[0]["lr"] = 1e-3
    optimizer.step()
    assert method.heads.scale().item() == pytest.approx(100 * math.exp(-0.1), rel=1e-4)


def test_below_the_bound_the_temperature_is_free() -> None:
    assert probe().heads.scale().item() == pytest.approx(20, rel=1e-5)
    assert "heads.log_scale" in probe().trained()
    aligned = probe(aligned=True, image_dim=6)
    assert "heads.log_scale" not in aligned.trained() and aligned.heads.scale().item() == pytest.approx(20, rel=1e-5)


def test_a_probe_of_towers_apart_is_its_heads_alone() -> None:
    method, pooled = probe().eval(), torch.randn(3, 7)
    assert torch.equal(method.encode_images(Features(pooled)), F.normalize(method.heads.images(pooled), dim=-1))
    assert {name.split(".")[0] for name in method.trained()} == {"heads"}
