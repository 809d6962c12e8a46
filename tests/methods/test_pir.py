"""PIR's encoders, losses, size and weights against independent computations."""

import math

import pytest
import torch
import torch.nn.functional as F
from pir_cases import CNN, FORMS, IDS, STEP, TEXTS, encoded, options, pir, pixels
from safetensors.torch import save_file

from cmer.backbones.build import build as build_backbone
from cmer.backbones.lite.options import LiteOptions
from cmer.config.backbones import FeatureOptions
from cmer.errors import UserError
from cmer.losses.affiliation import affiliation
from cmer.losses.memory import PairIds
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.methods.layers.timm_towers import timm_tower
from cmer.methods.pir.options import PirOptions

LITE = CNN | {
    **{"image_model": "tf_efficientnet_lite0", "image_weights": "lite"},
    **{"scene_model": "tf_efficientnet_lite0", "scene_weights": "lite"},
}


# --- encoders ---------------------------------------------------------------------------------------------------------


def naive_attention(layer, query, tokens):
    """One query [d] against tokens [L, d], with softmax and heads written out."""
    maps = layer.attention
    q, k, v = (
        part.unflatten(-1, (8, -1))
        for part in (
            F.linear(given, weight, bias)
            for given, weight, bias in zip(
                (query, tokens, tokens), maps.in_proj_weight.chunk(3), maps.in_proj_bias.chunk(3), strict=True
            )
        )
    )
    heads = [torch.softmax(k[:, h] @ q[h] / math.sqrt(q.shape[-1]), dim=0) @ v[:, h] for h in range(8)]
    return maps.out_proj(torch.cat(heads))


def naive_layer(layer, queries, tokens):
    seen = [layer.norm(y + naive_attention(layer, q, tokens)) for q, y in zip(queries, tokens, strict=True)]
    return torch.stack([layer.mlp_norm(y + layer.mlp(y)) for y in seen])


def naive_progress(attention, tokens, guide=None):
    """All tokens [L, d] of one item; every one has a query of its own, as in the published code."""
    for own, cross, queries in zip(attention.own, attention.cross, attention.maps, strict=True):
        given = tokens if guide is None else guide.repeat(len(tokens), 1)
        tokens = naive_layer(cross, queries(given), naive_layer(own, tokens, tokens))
    return attention.head(tokens[0])


def swin_tokens(method, image):
    return method.image.forward_features(image[None])[0].reshape(-1, 16)


def cnn_tokens(method, image):
    last = method.image.net(image[None])[-1][0]
    return torch.stack([last[:, i, j] for i in range(2) for j in range(2)])


@pytest.mark.parametrize(("form", "tokens_of", "shape"), [({}, swin_tokens, (16, 16)), (CNN, cnn_tokens, (4, 96))])
def test_an_image_is_its_mean_token_and_the_progress_of_the_tokens_that_its_scene_ranks_highest(
    form, tokens_of, shape
) -> None:
    method = pir(**form)
    count, total = method.options.kept_tokens, shape[0] + 1
    assert method.options.tokens == total
    with torch.no_grad():
        found = method.encode_images(pixels(method))
        for image, expected in zip(pixels(method), found, strict=True):
            states = tokens_of(method, image)
            assert states.shape == shape
            tokens = method.image_projection(torch.stack([states.mean(dim=0), *states]))
            guide = method.scene_projection(method.scene.tower(image[None])[0])
            belief = [float(token @ guide) for token in tokens]
            kept = sorted(range(total), key=lambda token: -belief[token])[:count]
            v = tokens[0] + naive_progress(method.image_attention, tokens[kept], guide)
            assert torch.allclose(expected, v / v.norm(), atol=1e-5)


def test_a_text_is_its_class_token_and_the_progress_of_its_words() -> None:
    method = pir()
    with torch.no_grad():
        found = method.encode_texts(method.tokenize(TEXTS))
        for text, expected in zip(TEXTS, found, strict=True):
            tokens = method.tokenize([text])
            states = method.text_projection(method.text(tokens.ids, tokens.mask))[0]
            s = states[0] + naive_progress(method.text_attention, states)
            assert torch.allclose(expected, s / s.norm(), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_images_and_columns_are_texts(form) -> None:
    method, order = pir(**form), torch.tensor([2, 0, 3, 1])

    def scores(images, texts):
        with torch.inference_mode():
            return method.score(method.encode_images(images), method.encode_texts(method.tokenize(texts)))

    found = scores(pixels(method), TEXTS)
    assert found.shape == (4, 4) and found.std() > 1e-3
    assert torch.allclose(scores(pixels(method), [TEXTS[i] for i in order]), found[:, order], atol=1e-5)
    other = pixels(method)
    other[1] += 1
    assert ((scores(other, TEXTS) - found).abs().amax(dim=1) > 1e-5).tolist() == [False, True, False, False]


def test_texts_have_at_most_47_word_pieces() -> None:
    assert pir().tokenize(["word " * 90]).ids.shape == (1, 47)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_the_affiliation_loss_compares_with_class_means_of_the_other_modality() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 4, generator=generator), dim=1) for _ in range(2))
    labels, scale = [3, 1, 3, -1, -1, 3], 7.0
    total = 0.0
    for anchors, others in ((images, texts), (texts, images)):
        means = []
        for i in range(6):
            members = [j for j in range(6) if j == i or (labels[j] == labels[i] and labels[i] >= 0)]
            means.append(sum(others[j] for j in members) / len(members))
        for i in range(6):
            logits = [scale * float(anchors[i] @ mean) for mean in means]
            total += math.log(sum(map(math.exp, logits))) - logits[i]
    found = affiliation(images, texts, torch.tensor(labels), torch.tensor(scale))
    assert found.item() == pytest.approx(total / 12, abs=1e-5)


def test_losses_are_contrastive_and_affiliation_with_a_temperature_each() -> None:
    method = pir(affiliation=0.5)
    same_text = PairIds(IDS.images, torch.tensor([0, 1, 0, 3]), IDS.labels)
    with torch.no_grad():
        method.log_scales.copy_(torch.tensor([2.0, 1.0]))
        images, texts = encoded(method)
        found = method.losses(images, texts, same_text, None, STEP)
        logits = math.exp(2) * images @ texts.T
        target = torch.tensor([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]])
        halves = [-(target * part.log_softmax(dim=1)).sum(dim=1).mean() for part in (logits, logits.T)]
        half = affiliation(images, texts, IDS.labels, torch.tensor(math.exp(1))) / 2
    assert found["contrastive"].item() == pytest.approx(float(sum(halves)) / 2, abs=1e-5)
    assert found["affiliation"].item() == pytest.approx(half.item(), abs=1e-5)
    plain = pir(affiliation=0.0)
    assert set(plain.losses(*encoded(plain), IDS, None, STEP)) == {"contrastive"}


@pytest.mark.parametrize("form", FORMS)
def test_every_trained_tensor_gets_a_gradient_and_the_scene_tower_stays_as_it_is(form) -> None:
    method = pir(**form).train()
    before = {name: tensor.clone() for name, tensor in method.scene.state_dict().items()}
    sum(method.losses(*encoded(method), IDS, None, STEP).values()).backward()
    trained = {name for name, _ in method.named_parameters() if not name.startswith("scene.")}
    missing = {n for n, p in method.named_parameters() if n in trained and (p.grad is None or not p.grad.abs().max())}
    statistics = {name for name, _ in method.named_buffers() if "running" in name and not name.startswith("scene.")}
    assert not missing and set(method.trained()) == trained | statistics and bool(statistics) == bool(form)
    assert all(p.grad is None for p in method.scene.parameters()) and not method.scene.tower.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.scene.state_dict().items())


# --- size, settings, weights ------------------------------------------------------------------------------------------


def test_parameters_at_full_size_in_closed_form() -> None:
    """Swin-T, BERT-base without pooler, three projections, 5 cycles of two layers and a map, 2 heads, 2 scales."""
    d, e = 768, 512
    swin = 96 * 48 + 3 * 96 + 2 * d  # patches with their LayerNorm, last LayerNorm
    for stage, (depth, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        c = 96 * 2**stage
        swin += depth * (12 * c * c + 13 * c + 13 * 13 * heads) + (8 * c + 8 * c * c if stage < 3 else 0)
    bert = (30522 + 512 + 2) * d + 2 * d + 12 * (12 * d * d + 13 * d)
    layer = 4 * (e * e + e) + (2 * e * e + 2 * e) + 4 * e + (2 * e * e + e) + 4 * e
    cycles = 5 * (2 * layer + e * e + e) + 2 * (e * e + e)
    expected = swin + bert + 2 * (d * e + e) + 2048 * e + e + cycles + 2
    with torch.device("meta"):
        method = build("pir", PirOptions().without_weights(), Context(None, FeatureOptions(), None, [], 0))
    assert method.count() == expected == 161_134_460


def test_differences_name_sizes_and_random_weights() -> None:
    assert PirOptions().differences() == {} and PirOptions().gpu and not options().gpu
    assert options(affiliation=0.0).differences() == {
        "sizes": "32 pixels, Swin 1-1 from 8 wide, test_resnet, tiny",
        "image_weights": "random image weights",
        "scene_weights": "random scene weights",
        "affiliation": "no affiliation loss",
    }
    assert PirOptions(pretrained=False).differences() == {"pretrained": "no pretrained"}
    lite = options(**LITE)
    assert lite.differences() == {
        "sizes": "64 pixels, tf_efficientnet_lite0, tf_efficientnet_lite0, tiny",
        "image_weights": "image weights lite",
        "scene_weights": "scene weights lite",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 36}, "must be a multiple of 8"),
        ({"kept_tokens": 18}, "18 of the 17 image tokens"),
        ({"heads": [3, 2]}, "the 8 channels of stage 1 must be a multiple of 3"),
        ({"depths": [1]}, "one number per stage"),
        ({"embedding": 20}, "multiple of 8"),
        ({"image_weights": "lite"}, "lite needs `image_model: tf_efficientnet_lite0`"),
        ({"scene_weights": "lite"}, r"lite needs `scene_model: tf_efficientnet_lite0` \(given: test_resnet\)"),
        (CNN | {"window": 3, "width": 48}, "width, window: sizes of Swin; test_resnet has none of them"),
        (CNN | {"image_size": 80}, "must be a multiple of 32"),
        (CNN | {"kept_tokens": 6}, "6 of the 5 image tokens"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def shifted(state):
    """Swin's layout by its authors: the merging of patches ends a stage, and buffers are stored."""
    renamed = {}
    for name, tensor in state.items():
        renamed[name.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc", "head")] = tensor
    return {"model": renamed | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(2)}}


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        shifted,
        "safetensors",
    ],
)
def test_weights_of_a_tower_are_read_in_all_published_layouts(tmp_path, layout) -> None:
    sizes = {"img_size": 32, "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 2}
    torch.manual_seed(0)
    state = timm_tower("swin_tiny_patch4_window7_224", None, **sizes).state_dict()
    state |= {"head.fc.weight": torch.zeros(5, 16), "head.fc.bias": torch.zeros(5)}  # a classifier, which is dropped
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pth")
    if layout == "safetensors":
        save_file(state, path)
    else:
        torch.save(layout(state), path)
    read = timm_tower("swin_tiny_patch4_window7_224", str(path), **sizes).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.items())


def test_lite_towers_are_that_of_the_lite_backbone() -> None:
    """The scene model gives its pooled head; the image tower ends before it."""
    method = build("pir", options(**LITE), Context(None, FeatureOptions(), None, [], 0)).eval()
    lite = build_backbone(LiteOptions(kind="lite", printed="lite", size=64))
    assert method.preprocess.size == 64 and method.preprocess.mean == (0.5, 0.5, 0.5)
    with torch.no_grad():
        features = lite.encode_images(pixels(method), [10])
        assert torch.allclose(method.scene(pixels(method)), features.pooled[:, :1280], atol=1e-4)
        assert torch.allclose(method.image(pixels(method))[-1].flatten(2).mT, features.blocks[10][:, 1:], atol=1e-3)


def test_weights_of_another_tower_are_refused(tmp_path) -> None:
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth: they are another model's \(missing .*; unexpected 0.weight\)"):
        timm_tower("test_resnet", str(tmp_path / "w.pth"))
