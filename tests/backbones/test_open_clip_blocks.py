"""The attention and activation that replace open_clip's: equal values and gradients, one path for every method."""

import copy

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import nn

from cmer.backbones.attention import SelfAttention
from cmer.backbones.build import build as build_backbone
from cmer.backbones.open_clip.blocks import LeanQuickGELU, replace_parts
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.profiling.measure import saved_bytes
from cmer.registry import METHOD_OPTIONS

TEXTS = ["a red plane", "two white boats lie left of the long pier in the harbour", "a pond"]
METHODS = {
    "clip_adapter": {},
    "clip_bitfit": {},
    "clip_lora": {},
    "clip_lora, in-projections": {"preset": "in_projections"},
    "cross_modal_adapter": {},
    "pe_rsitr": {"dropout": 0.0, "input_dropout": 0.0},
    "single_language": {},
    "cmer": {"hidden": 24, "heads": 2},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def untouched(quick_gelu):
    """A CLIP of two blocks per tower as open_clip makes it, with biases and norms that are not zero or one."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 16},
        text_cfg={"width": 48, "heads": 4, "layers": 2},
        quick_gelu=quick_gelu,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def embeddings(model):
    torch.manual_seed(1)
    return model.encode_image(torch.randn(3, 3, 32, 32)), model.encode_text(open_clip.tokenize(TEXTS))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_values_and_gradients_are_open_clips(quick_gelu, training) -> None:
    oracle = untouched(quick_gelu).train(training)
    ours = copy.deepcopy(oracle)
    replace_parts(ours)
    assert list(ours.state_dict()) == list(oracle.state_dict())
    with torch.no_grad():  # in eval mode, the oracle takes PyTorch's fused kernel here
        for found, expected in zip(embeddings(ours), embeddings(oracle), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)
    for model in (ours, oracle):
        sum((x**3).sum() for x in embeddings(model)).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in oracle.named_parameters():
        if parameter.grad is None:
            assert gradients[name] is None
        else:
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4 * float(parameter.grad.std()))


@pytest.mark.parametrize("mask", ["none", "causal", "per head"])
def test_an_attention_is_nn_multihead_attention(mask) -> None:
    torch.manual_seed(0)
    oracle = nn.MultiheadAttention(24, 3, batch_first=True)
    nn.init.normal_(oracle.in_proj_bias)
    nn.init.normal_(oracle.out_proj.bias)
    ours = SelfAttention(oracle)
    masks = {
        "none": None,
        "causal": torch.full((5, 5), float("-inf")).triu(1),
        "per head": torch.randn(2 * 3, 5, 5),
    }
    x = torch.randn(2, 5, 24, requires_grad=True)
    found, weights = ours(x, x, x, need_weights=False, attn_mask=masks[mask])
    expected, _ = oracle(x, x, x, need_weights=False, attn_mask=masks[mask])
    assert weights is None
    assert torch.allclose(found, expected, atol=1e-6)
    wanted = [x, *oracle.parameters()]
    for ours_, theirs in zip(
        torch.autograd.grad(found.pow(3).sum(), wanted),
        torch.autograd.grad(expected.pow(3).sum(), wanted),
        strict=True,
    ):
        assert torch.allclose(ours_, theirs, rtol=1e-4, atol=1e-4)
    if mask == "causal":
        start = x[:, :2]
        assert torch.allclose(ours(start, start, start, attn_mask=masks[mask][:2, :2])[0], found[:, :2], atol=1e-6)


def method_of(case):
    tower = build_backbone(TinyOptions(kind="tiny", printed="tiny"))
    name, features = case.split(",")[0], FeatureOptions(blocks=[0, 1], text_blocks=[0, 1])
    return build(name, METHOD_OPTIONS.get(name)(**METHODS[case]), Context(tower.shapes, features, tower, TEXTS, 0))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", METHODS)
def test_every_method_has_one_attention(case, training, monkeypatch) -> None:
    """Trained, adapted and frozen attentions all go through `attend`, and none through PyTorch's own forward passes."""
    called = []
    attend = SelfAttention.attend
    monkeypatch.setattr(SelfAttention, "attend", lambda self, *args: called.append(self) or attend(self, *args))
    for name in ("multi_head_attention_forward", "_native_multi_head_attention"):
        for place in (F, torch):
            monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("PyTorch's attention"), raising=False)
    method = method_of(case).train(training)
    tower = method.backbone
    attentions = [module for module in tower.modules() if isinstance(module, SelfAttention)]
    assert len(attentions) == 4 and not any(isinstance(module, nn.MultiheadAttention) for module in tower.modules())
    with torch.set_grad_enabled(training):
        tower.encode_images(torch.randn(2, 3, 32, 32))
        tower.encode_texts(tower.tokenize(TEXTS))
    assert {id(module) for module in called} == {id(module) for module in attentions}
    assert len(called) == 4


def test_a_frozen_attention_costs_the_same_beside_any_method() -> None:
    """Bytes that one attention keeps with all its own parameters frozen; LoRA's update keeps only its own inner map."""
    x, kept = torch.randn(2, 17, 64, requires_grad=True), {}
    for case in METHODS:
        method = method_of(case)
        attention = method.backbone.model.visual.transformer.resblocks[0].attn.requires_grad_(False)
        known = [x, *method.parameters(), *method.buffers()]
        kept[case] = saved_bytes(lambda attention=attention: attention(x, x, x, need_weights=False), known)
    assert len(set(kept.values())) == 1 and min(kept.values()) > 0


# --- QuickGELU ---------------------------------------------------------------------------------------


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_the_lean_quick_gelu_has_the_same_values_and_gradients(dtype, tolerance) -> None:
    x = torch.linspace(-30, 30, 4001, dtype=dtype).requires_grad_()
    weight = torch.cos(torch.arange(4001, dtype=dtype))
    found, expected = LeanQuickGELU()(x), quick_gelu(x)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
    slopes = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
    assert torch.allclose(*slopes, rtol=tolerance, atol=tolerance)


def test_the_lean_quick_gelu_keeps_one_tensor() -> None:
    x = torch.randn(5, 7, requires_grad=True)
    linear = nn.Linear(7, 11).requires_grad_(False)
    counts = {
        f: saved_bytes(lambda f=f: f(linear(x)), [x, *linear.parameters()]) for f in (LeanQuickGELU(), QuickGELU())
    }
    assert list(counts.values()) == [5 * 11 * 4, 2 * 5 * 11 * 4]


def test_every_block_has_the_activation_of_its_model() -> None:
    for quick, kind in ((True, LeanQuickGELU), (False, nn.GELU)):
        model = untouched(quick)
        replace_parts(model)
        blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
        assert [type(block.mlp.gelu) for block in blocks] == [kind] * 4
        assert not any(isinstance(module, QuickGELU) for module in model.modules())
