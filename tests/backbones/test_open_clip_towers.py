"""open_clip's models with timm's image towers or other text poolings: the real classes, shrunk, with random weights."""

import copy
import json
from functools import partial

import open_clip
import pytest
import timm
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers import PreTrainedTokenizerFast

from cmer.backbones.attention import SelfAttention
from cmer.backbones.build import build
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import StepInfo
from cmer.methods.build import build as build_method
from cmer.methods.build import context_of
from cmer.registry import METHOD_OPTIONS

TEXTS = ["a red plane", "two white boats lie left of the long pier in the harbour", "a red forest"]
PUBLISHED = {
    "siglip": "ViT-B-16-SigLIP2",
    "mobileclip": "MobileCLIP2-S0",
    "pe": "PE-Core-B-16",
    "coca": "coca_ViT-B-32",
}
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
TRUNKS = {
    "siglip": VIT,
    "mobileclip": {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32)},
    "pe": VIT | {"ref_feat_shape": (2, 2), "attn_pool_num_heads": 2},
    "coca": {},
}
VISION = {
    "siglip": {"image_size": 32},
    "mobileclip": {"image_size": 64},
    "pe": {"image_size": 32},
    "coca": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "attn_pooler_heads": 2},
}
SMALL_TEXT = {"width": 32, "heads": 2, "layers": 2}


def local_tokenizer(folder) -> int:
    """Write a tokenizer of whole words to the folder, with an end token and padding as SigLIP 2's; its size."""
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<eos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="right"
    ).save_pretrained(folder)
    return len(vocabulary)


def shrunk_config(family: str, folder) -> dict:
    """The published model's configuration with small towers."""
    config = copy.deepcopy(open_clip.get_model_config(PUBLISHED[family]))
    config["vision_cfg"] |= VISION[family]
    config["text_cfg"] |= SMALL_TEXT
    config["embed_dim"] = 32
    if family == "siglip":
        config["text_cfg"] |= {"vocab_size": local_tokenizer(folder), "hf_tokenizer_name": str(folder)}
    if family == "coca":
        config["multimodal_cfg"] |= SMALL_TEXT | {"attn_pooler_heads": 2}
    return config


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Towers this small are much slower when threads have to wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(PUBLISHED))
def family(request, tmp_path_factory):
    """(family, its backbone, the same model as open_clip alone makes it)."""
    name, folder = f"shrunk-{request.param}", tmp_path_factory.mktemp(request.param)
    (folder / f"{name}.json").write_text(json.dumps(shrunk_config(request.param, folder / "tokenizer")))
    open_clip.add_model_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", partial(timm.create_model, **TRUNKS[request.param]))
        backbone = build(OpenClipOptions(kind="open_clip", model=name, seed=3))
        torch.manual_seed(3)
        oracle = open_clip.create_model(name).eval()
    return request.param, backbone, oracle


def pixels_for(backbone, count=3):
    torch.manual_seed(0)
    side = backbone.preprocess.size
    return torch.randn(count, 3, side, side)


def test_embeddings_are_the_models_own(family) -> None:
    _, backbone, oracle = family
    pixels, tokens = pixels_for(backbone), backbone.tokenize(TEXTS)
    padded = oracle_tokens(oracle, backbone)
    with torch.no_grad():
        image, text = backbone.encode_images(pixels).pooled, backbone.encode_texts(tokens).pooled
        assert torch.allclose(image, oracle.encode_image(pixels, normalize=False), atol=1e-5)
        assert torch.allclose(text, oracle.encode_text(padded, normalize=False), atol=1e-5)
    assert image.std(dim=0).min() > 0 and text.std(dim=0).min() > 0  # no constant output would pass


def oracle_tokens(oracle, backbone):
    """The texts padded to the context length, as open_clip's training has them."""
    ids = backbone._text.tokenizer(TEXTS)
    assert ids.shape[1] == oracle.text.context_length
    return ids


def test_blocks_have_the_shapes_that_are_stated(family) -> None:
    name, backbone, _ = family
    shapes, pixels = backbone.shapes, pixels_for(backbone)
    blocks = range(len(shapes.blocks))
    image = backbone.encode_images(pixels, blocks)
    assert {b: tuple(x.shape) for b, x in image.blocks.items()} == {
        b: (3, spec.tokens, spec.width) for b, spec in enumerate(shapes.blocks)
    }
    assert image.pooled.shape == (3, shapes.image_dim)
    assert torch.allclose(image.pooled, backbone.encode_images(pixels).pooled, atol=1e-5)
    tokens = backbone.tokenize(TEXTS)
    text = backbone.encode_texts(tokens, range(len(shapes.text_blocks)))
    assert text.pooled.shape == (3, shapes.text_dim)
    assert all(x.shape == (*tokens.ids.shape, 32) for x in text.blocks.values()) and len(text.blocks) == 2
    assert torch.allclose(text.pooled, backbone.encode_texts(tokens).pooled, atol=1e-5)
    grids = {"siglip": [2, 2], "mobileclip": [16, 8, 4, 2], "pe": [2, 2], "coca": [2, 2]}
    assert [(spec.grid, spec.has_cls) for spec in shapes.blocks] == [
        (grid, name in ("pe", "coca")) for grid in grids[name]
    ]


def test_block_outputs_are_those_of_the_modules(family) -> None:
    name, backbone, oracle = family
    visual = oracle.visual
    places = visual.transformer.resblocks if name == "coca" else getattr(visual.trunk, "stages", None)
    kept: list[torch.Tensor] = []
    for module in visual.trunk.blocks if places is None else places:
        module.register_forward_hook(lambda _module, _args, output: kept.append(output.detach()))
    pixels = pixels_for(backbone)
    with torch.no_grad():
        oracle.encode_image(pixels)
        ours = backbone.encode_images(pixels, [1, 0]).blocks
    for index in (0, 1):
        theirs = kept[index].flatten(2).transpose(1, 2) if name == "mobileclip" else kept[index]
        assert torch.allclose(ours[index], theirs, atol=1e-5)


def test_texts_are_cut_where_the_tower_allows_it(family) -> None:
    name, backbone, oracle = family
    tokens = backbone.tokenize(TEXTS)
    words = torch.tensor([len(text.split()) for text in TEXTS])
    assert torch.equal(tokens.mask.sum(dim=1), words + (1 if name == "siglip" else 2))  # with end, and start
    assert tokens.mask[:, 0].all() and (tokens.mask.int().diff(dim=1) <= 0).all()
    context = oracle.text.context_length
    assert tokens.ids.shape[1] == (14 if name == "pe" else context)
    long = backbone.tokenize(["a plane " * 200])
    assert long.ids.shape[1] == context and long.mask.all()


def test_bias_and_temperature_are_the_shapes(family) -> None:
    name, backbone, oracle = family
    assert backbone.shapes.logit_scale == pytest.approx(oracle.logit_scale.exp().item())
    assert backbone.shapes.logit_bias == (-10.0 if name == "siglip" else None)
    assert not {"model.logit_scale", "model.logit_bias"} & set(backbone.state_dict())


SETTINGS = {
    "clip_lora": {"lora_rank": 2},
    "clip_lora on in-projections": {"lora_rank": 2, "preset": "in_projections"},
    "clip_adapter": {"preset": "houlsby64"},
    "clip_bitfit": {},
    "cross_modal_adapter": {},
    "pe_rsitr": {},
    "single_language": {},
    "cmer": {"hidden": 12, "heads": 2},
    "cmer with a text branch": {"hidden": 12, "heads": 2, "text": "side_branch"},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_methods_train(family, case) -> None:
    """One step: every trained tensor has a gradient, matrices no zero one, and the frozen rest has none."""
    backbone, name = copy.deepcopy(family[1]), case.split()[0]
    options = METHOD_OPTIONS.get(name)(**SETTINGS[case])
    method = build_method(name, options, context_of(options, backbone, FeatureOptions(), TEXTS, 0)).train()
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    if name != "single_language":  # start apart from the frozen towers, where half of the gradients are zero
        with torch.no_grad():
            for parameter in trained.values():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    images, tokens = pixels_for(backbone), backbone.tokenize(TEXTS)
    reads_pixels = options.image_input == "pixels"
    seen = images if reads_pixels else backbone.encode_images(images, method.image_blocks)
    read = tokens if options.text_input == "tokens" else backbone.encode_texts(tokens, method.text_blocks)
    ids = torch.arange(3)
    losses = method.losses(
        method.encode_images(seen), method.encode_texts(read), PairIds(ids, ids, ids), None, StepInfo(0, 1)
    )
    sum(losses.values()).backward()
    assert trained and [n for n, p in trained.items() if p.grad is None] == []
    assert [n for n, p in trained.items() if p.ndim > 1 and not p.grad.abs().max() > 0] == []
    before = {n: p.detach().clone() for n, p in trained.items()}
    torch.optim.SGD(trained.values(), lr=1.0).step()
    assert any(not torch.equal(before[n], p) for n, p in trained.items())
    assert all(p.grad is None for n, p in method.named_parameters() if n not in trained)


def test_attachment_points_name_what_runs(family) -> None:
    """Every linear map and site is called; entry and exit have the stated width, and their place in a residual."""
    name, backbone, _ = family
    points, seen = backbone.attachment_points(), {}
    modules = dict(backbone.named_modules())
    sites = points.image_sites + points.text_sites
    watched = {*points.image_linears, *points.text_linears, points.image_input, points.text_input}
    watched |= {module for site in sites for module in (site.entry, site.exit)}
    hooks = [
        modules[module].register_forward_hook(
            lambda _module, args, output, module=module: seen.update({module: (args, output)})
        )
        for module in watched
    ]
    with torch.no_grad():
        backbone.encode_images(pixels_for(backbone))
        backbone.encode_texts(backbone.tokenize(TEXTS))
    for hook in hooks:
        hook.remove()
    assert set(seen) == watched
    for site in sites:
        channels = 1 if site.channels_first else -1
        entered, left = seen[site.entry][0][0], seen[site.exit][1]
        assert entered.shape == left.shape and entered.shape[channels] == site.width
    kinds = {type(modules[linear]) for linear in points.image_linears}
    assert (
        kinds
        == {
            "siglip": {nn.Linear},
            "mobileclip": {nn.Linear, nn.Conv2d},
            "pe": {nn.Linear},
            "coca": {SelfAttention, nn.Linear, NonDynamicallyQuantizableLinear},
        }[name]
    )
    assert len({(site.block, site.part) for site in points.image_sites}) == len(points.image_sites)


def test_in_projections_are_the_maps_that_attention_reads(family) -> None:
    """Every attention of both towers has its map from d to 3 d channels; a FastViT has attention only at its end."""
    name, backbone, _ = family
    points = backbone.attachment_points()
    image = {
        "siglip": ["blocks.0.attn.qkv", "blocks.1.attn.qkv"],
        "pe": ["blocks.0.attn.qkv", "blocks.1.attn.qkv"],
        "coca": ["resblocks.0.attn", "resblocks.1.attn"],
        "mobileclip": ["stages.3.blocks.0.token_mixer.qkv"],
    }[name]
    text = ["transformer.resblocks.0.attn", "transformer.resblocks.1.attn"]
    for found, linears, expected in (
        (points.image_in_projections, points.image_linears, image),
        (points.text_in_projections, points.text_linears, text),
    ):
        assert set(found) <= set(linears)
        assert len(found) == len(expected)
        assert all(name.endswith(end) for name, end in zip(found, expected, strict=True))
