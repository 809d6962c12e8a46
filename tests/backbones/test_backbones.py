import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cmer.backbones.build import build
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.base import ConfigError, validate
from cmer.errors import UserError

TEXTS = ["a red plane", "two white boats lie left of the long pier in the harbour"]


@pytest.fixture(scope="module")
def tiny():
    return build(TinyOptions(kind="tiny", printed="tiny"))


@pytest.fixture(scope="module")
def lite():
    return build(LiteOptions(kind="lite", printed="lite", size=64))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small model known to open_clip by name, and a file of weights for it."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "small.json").write_text(json.dumps(config))
    (tmp_path / "small-quickgelu.json").write_text(json.dumps(config | {"quick_gelu": True}))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(5)
    save_file(open_clip.create_model("small").state_dict(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def open_clip_row(**settings):
    return validate(OpenClipOptions, {"kind": "open_clip", "printed": "x"} | settings, "backbone")


def test_trimmed_text_equals_padded_on_open_clip(tiny) -> None:
    trimmed = tiny.encode_texts(tiny.tokenize(TEXTS))
    padded = tiny.model.encode_text(open_clip.tokenize(TEXTS))
    assert tiny.tokenize(TEXTS).ids.shape[1] < 77
    assert torch.allclose(trimmed.pooled, padded, atol=1e-5)


def test_trimmed_text_equals_padded_on_lite(lite) -> None:
    alone, together = lite.encode_texts(lite.tokenize(TEXTS[:1]), [3]), lite.encode_texts(lite.tokenize(TEXTS), [3])
    assert torch.allclose(alone.pooled[0], together.pooled[0], atol=1e-5)
    length = int(together.mask[0].sum())
    assert torch.allclose(alone.blocks[3][0], together.blocks[3][0, :length], atol=1e-5)


def test_long_texts_lose_their_tail(tiny, lite) -> None:
    long = ["a plane " * 200]
    assert tiny.tokenize(long).ids.shape[1] == 77 and tiny.tokenize(long).mask.all()
    assert lite.tokenize(long).ids.shape[1] == 128


@pytest.mark.parametrize("name", ["tiny", "lite"])
def test_outputs_have_the_shapes_that_are_stated(name, request) -> None:
    backbone = request.getfixturevalue(name)
    shapes, size = backbone.shapes, backbone.preprocess.size
    blocks = range(len(shapes.blocks))
    image = backbone.encode_images(torch.randn(2, 3, size, size), blocks)
    assert image.pooled.shape == (2, shapes.image_dim)
    assert {b: tuple(x.shape) for b, x in image.blocks.items()} == {
        b: (2, spec.tokens, spec.width) for b, spec in enumerate(shapes.blocks)
    }
    tokens = backbone.tokenize(TEXTS)
    text = backbone.encode_texts(tokens, range(len(shapes.text_blocks)))
    assert text.pooled.shape == (2, shapes.text_dim)
    assert all(x.shape[:2] == tokens.ids.shape for x in text.blocks.values())


def test_pooled_is_the_same_whatever_blocks_are_asked_for(tiny) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(tiny.encode_images(pixels).pooled, tiny.encode_images(pixels, [0, 1]).pooled)
    assert torch.allclose(tiny.encode_images(pixels).pooled, tiny.model.encode_image(pixels), atol=1e-6)


def test_lite_is_pretrained(lite) -> None:
    """A paraphrase is closer than another scene; the image head's weights classify (torch would start at random)."""
    plane, airplane, boats = lite.encode_texts(
        lite.tokenize(["a red plane", "a crimson airplane", "boats at a pier"])
    ).pooled
    assert torch.cosine_similarity(plane, airplane, dim=0) > torch.cosine_similarity(plane, boats, dim=0) + 0.3
    norms = [module for module in lite.image.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(module.training for module in norms)
    assert all(module.running_var.std() > 0 for module in norms)


def test_lite_offers_the_blocks_at_stride_16_and_32(lite) -> None:
    assert [(b.grid, b.width) for b in lite.shapes.blocks] == [(4, 80)] * 3 + [(4, 112)] * 3 + [(2, 192)] * 4 + [
        (2, 320)
    ]
    assert lite.shapes.image_dim == 1280 + 24 + 40 + 80 + 112 + 192 + 320


def test_every_attachment_point_names_a_module(tiny, lite) -> None:
    for backbone in (tiny, lite):
        modules = dict(backbone.named_modules())
        points = backbone.attachment_points()
        assert points.image_linears and points.text_linears
        assert set(points.image_linears + points.text_linears) <= set(modules)


def test_preprocessing_is_open_clips(tiny) -> None:
    image = Image.effect_noise((50, 40), 80).convert("RGB")
    ours = tiny.preprocess.normalise(tiny.preprocess.square(image))
    theirs = open_clip.image_transform(32, is_train=False)(image)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_local_weights_are_loaded(model) -> None:
    backbone = build(open_clip_row(model="small", weights=str(model), quick_gelu=False))
    torch.manual_seed(5)
    assert torch.equal(backbone.model.visual.proj, open_clip.create_model("small").visual.proj)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_another_activation_than_the_weights_is_an_error(model) -> None:
    with pytest.raises(UserError, match=r"trained with QuickGELU, small computes GELU.*use model: small-quickgelu"):
        build(open_clip_row(model="small", weights=str(model), quick_gelu=True))
    with pytest.raises(UserError, match=r"'openai' was trained with QuickGELU.*use model: ViT-B-32-quickgelu"):
        build(open_clip_row(model="ViT-B-32", pretrained="openai"))
    with pytest.raises(UserError, match=r"trained with GELU, small-quickgelu computes QuickGELU.*use model: small$"):
        build(open_clip_row(model="small-quickgelu", weights=str(model), quick_gelu=False))


def test_clear_errors(model, tmp_path) -> None:
    with pytest.raises(UserError, match="'ViT-B-33' is unknown to open_clip; close names are ViT-B-32"):
        build(open_clip_row(model="ViT-B-33"))
    with pytest.raises(UserError, match="no pretrained tag 'opnai'; known are openai"):
        build(open_clip_row(model="ViT-B-32-quickgelu", pretrained="opnai"))
    with pytest.raises(UserError, match="does not exist"):
        build(open_clip_row(model="small", weights=str(tmp_path / "none.pt"), quick_gelu=False))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cannot load weights .*broken"):
        build(open_clip_row(model="small", weights=str(broken), quick_gelu=False))
    with pytest.raises(ConfigError, match="needs `quick_gelu`"):
        open_clip_row(model="small", weights=str(model))
    with pytest.raises(UserError, match="ViT or FastViT as image tower can serve as backbone, not ModifiedResNet"):
        build(open_clip_row(model="RN50"))
