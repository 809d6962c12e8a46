"""LoRA's presets: what they adapt, and that adapted maps equal merged ones."""

import pytest
import torch
from baseline_cases import TEXTS, baseline, meta_count, pixels_of, tower_of
from torch import nn

from cmer.errors import UserError


@pytest.mark.parametrize(("backbone", "printed"), [("ViT-B-32", 3.93), ("ViT-B-16", 3.93), ("ViT-L-14", 8.65)])
def test_both_presets_of_clip_lora_have_the_printed_count(backbone, printed) -> None:
    """Per block of width d: 16 (4 d + 2 d + 5 d + 5 d) on every map, or 64 * 4 d on the in-projection: 256 d."""
    widths = (1024, 768) if backbone == "ViT-L-14" else (768, 512)
    layers = (24, 12) if backbone == "ViT-L-14" else (12, 12)
    count = sum(256 * d * n for d, n in zip(widths, layers, strict=True))
    assert f"{count / 1e6:.2f}" == f"{printed:.2f}"
    assert meta_count(backbone, "clip_lora") == meta_count(backbone, "clip_lora", preset="in_projections") == count


def test_presets_of_clip_lora_adapt_the_maps_that_they_name() -> None:
    parts = {"attn", "out_proj", "c_fc", "c_proj"}
    for options, expected, rank in (
        ({}, parts, 16),
        ({"preset": "in_projections"}, {"attn"}, 64),
        ({"preset": "in_projections", "lora_rank": 4}, {"attn"}, 4),
        ({"lora_rank": 2}, parts, 2),
    ):
        adapted = {n: p for n, p in baseline("clip_lora", **options).trained().items() if "lora_A" in n}
        assert {n.split(".lora_A")[0].split(".")[-1] for n in adapted} == expected
        assert {p.shape[0] for p in adapted.values()} == {rank}
        assert len(adapted) == 4 * len(expected)
    with pytest.raises(UserError, match="preset in_projections needs attention in both towers"):
        baseline("clip_lora", "lite", preset="in_projections")


def test_lora_on_in_projections_equals_the_merged_ones() -> None:
    method, merged = baseline("clip_lora", preset="in_projections").eval(), tower_of("tiny")
    torch.manual_seed(4)
    for name, parameter in method.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    points, pixels, texts = merged.attachment_points(), pixels_of(method), merged.tokenize(TEXTS)
    with torch.no_grad():
        plain = merged.encode_images(pixels).pooled
        for name in points.image_in_projections + points.text_in_projections:
            layer = method.backbone.get_submodule(name)
            update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            merged.get_submodule(name).in_proj_weight += update
        found = method.backbone.encode_images(pixels).pooled
        assert torch.allclose(found, merged.encode_images(pixels).pooled, atol=1e-5)
        assert not torch.allclose(found, plain, atol=1e-2)
        words = method.backbone.encode_texts(texts).pooled
        assert torch.allclose(words, merged.encode_texts(texts).pooled, atol=1e-5)


def test_lora_on_convolutions_equals_the_merged_ones() -> None:
    """W + B A of a 1x1 convolution, merged by hand, gives the adapted tower's embedding."""
    method, merged = baseline("clip_lora", "lite").eval(), tower_of("lite")
    torch.manual_seed(4)
    for name, parameter in method.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    pixels = pixels_of(method)
    with torch.no_grad():
        plain = merged.encode_images(pixels).pooled
        for name in merged.attachment_points().image_linears:
            layer = method.backbone.get_submodule(name)
            update = layer.lora_B["default"].weight.flatten(1) @ layer.lora_A["default"].weight.flatten(1)
            merged.get_submodule(name).weight += update[:, :, None, None]
        found = method.backbone.encode_images(pixels).pooled
        assert torch.allclose(found, merged.encode_images(pixels).pooled, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(found, plain, rtol=1e-2, atol=1e-2)
