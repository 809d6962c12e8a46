"""IEFT's scores, loss, costs and size against independent computations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ieft_cases import IDS, SMALL, STEP, TEXTS, encoded, ieft, options, pixels
from transformers import ViltConfig, ViltModel

from cmer.config.backbones import FeatureOptions
from cmer.errors import UserError
from cmer.features.inputs import Inputs
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.ieft.model import draw_texts
from cmer.methods.ieft.options import IeftOptions
from cmer.methods.items import concatenate
from cmer.methods.layers.draws import step_generator
from cmer.retrieval.embed import encode_images, encode_texts, pair_forwards, score

# --- scores -----------------------------------------------------------------------------------------------------------


def naive_enhancement(part, patches):
    """The map of one image [N, d], position by position and channel by channel."""
    side, block = part.side, part.channels
    channels = patches.T
    q, k, v = F.linear(block.norm1(channels), block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, dim=1)
    heads = []
    for own in range(4):
        rows = slice(own * len(patches) // 4, (own + 1) * len(patches) // 4)
        weights = torch.softmax(q[:, rows] @ k[:, rows].T / math.sqrt(len(patches) / 4), dim=1)
        heads.append(weights @ v[:, rows])
    channels = channels + block.attn.proj(torch.cat(heads, dim=1))
    channels = channels + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(channels))))
    patches = channels.T
    wide = part.norm(patches) @ part.expand.weight[:, :, 0, 0].T
    mixed = torch.zeros_like(wide)
    for place in range(side * side):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                y, x = place // side + dy, place % side + dx
                if 0 <= y < side and 0 <= x < side:
                    mixed[place] += part.mix.weight[:, 0, dy + 1, dx + 1] * wide[y * side + x]
    hidden = wide.shape[1] // 2
    gated = F.gelu(mixed[:, :hidden]) * mixed[:, hidden:]
    return patches + gated @ part.reduce.weight[:, :, 0, 0].T


def naive_score(method, image, text):
    """One pair without padding, with the blocks of transformers, all positions in every block."""
    tokens = method.tokenize([text])
    words = method.words(tokens.ids)[0] + method.types.weight[0]
    kernel = method.patches.projection
    patches = [
        (kernel.weight * image[:, y : y + 8, x : x + 8]).sum(dim=(1, 2, 3)) + kernel.bias
        for y in range(0, 32, 8)
        for x in range(0, 32, 8)
    ]
    seen = torch.stack([method.cls_token[0, 0], *patches]) + method.positions[0] + method.types.weight[1]
    x, length = torch.cat([words, seen]), len(words)
    for index, block in enumerate(method.stream.blocks):
        if 1 <= index <= 3:
            x = torch.cat([x[: length + 1], naive_enhancement(method.stream.enhancements[index - 1], x[length + 1 :])])
        x = block(x[None])[0][0]
    first = method.stream.norm(x[0])
    return method.rank(torch.tanh(method.stream.pooler.dense(first)))


def test_scores_are_those_of_the_pairs_one_by_one() -> None:
    method = ieft()
    with torch.no_grad():
        found = method.score(*encoded(method))
        expected = torch.stack([torch.cat([naive_score(method, i, t) for t in TEXTS]) for i in pixels()])
    assert found.std() > 1e-2 and torch.allclose(found, expected, atol=1e-4)


def scores(method, images, texts):
    with torch.inference_mode():
        return method.score(method.encode_images(images), method.encode_texts(method.tokenize(texts)))


def test_rows_are_images_and_columns_are_texts() -> None:
    method, order = ieft(), torch.tensor([2, 0, 3, 1])
    found = scores(method, pixels(3), TEXTS)
    assert found.shape == (3, 4)
    assert torch.allclose(scores(method, pixels(3), [TEXTS[i] for i in order]), found[:, order], atol=1e-5)
    other = pixels(3)
    other[1] += 1
    assert ((scores(method, other, TEXTS) - found).abs().amax(dim=1) > 1e-4).tolist() == [False, True, False]


def test_padding_does_not_count_and_is_cut() -> None:
    method, lengths = ieft(), []
    with torch.inference_mode():
        images = method.encode_images(pixels(2))
        alone = [method.encode_texts(method.tokenize([text])) for text in TEXTS]
        together = method.score(images, concatenate(alone))
        assert torch.allclose(together, torch.cat([method.score(images, text) for text in alone], dim=1), atol=1e-5)
        method.stream.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
        method.score(images, {name: tensor[:1] for name, tensor in concatenate(alone).items()})
    assert lengths == [4]  # [CLS] a pond [SEP]
    assert method.tokenize(["word " * 90]).ids.shape == (1, 40)


def test_scoring_costs_the_declared_pair_forwards(monkeypatch) -> None:
    method, forwards = ieft(), []
    method.pairs_per_block = 32
    method.stream.register_forward_hook(lambda module, inputs, output: forwards.append(len(inputs[0])))
    texts = [f"{number} boats" for number in range(40)]
    inputs = Inputs(lambda images, views, training: pixels(8), lambda texts: method.tokenize(texts))
    images = encode_images(method, inputs, np.arange(8), 1, "float32")
    items, index = encode_texts(method, inputs, [*texts, *texts[:5]], "float32")
    assert not forwards and score(method, images, items, index).shape == (8, 45)
    assert sum(forwards) == pair_forwards(method, 8, [*texts, *texts[:5]], 1) == 8 * 40
    assert max(forwards) <= 32


# --- loss -------------------------------------------------------------------------------------------------------------


def test_false_texts_are_different_negatives_drawn_uniformly() -> None:
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = True
    counts = torch.zeros(6, 6)
    for seed in range(3000):
        texts, allowed = draw_texts(positives, 2, torch.Generator().manual_seed(seed))
        assert allowed.all() and torch.equal(texts[:, 0], torch.arange(6)) and (texts[:, 1] != texts[:, 2]).all()
        counts[torch.arange(6)[:, None], texts[:, 1:]] += 1
    expected = (~positives).float()
    assert torch.allclose(counts / 3000, expected * 2 / expected.sum(dim=1, keepdim=True), atol=0.05)


def test_an_image_with_few_negatives_has_fewer_false_texts() -> None:
    positives = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    texts, allowed = draw_texts(positives, 15, torch.Generator().manual_seed(0))
    assert texts.shape == (3, 3) and allowed.tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, False],
    ]
    assert texts[0, 1] == 2 and texts[2, 1] == 0


def test_the_loss_is_the_cross_entropy_of_the_matching_text_among_sixteen() -> None:
    method = ieft()
    torch.manual_seed(4)
    images = method.encode_images(torch.randn(20, 3, 32, 32))
    texts = method.encode_texts(method.tokenize([f"{number} boats and {number % 3} planes" for number in range(20)]))
    text_ids = torch.arange(20)
    text_ids[7] = text_ids[2]
    batch = PairIds(torch.arange(20), text_ids, torch.zeros(20))
    with torch.no_grad():
        found = method.losses(images, texts, batch, None, STEP)["ranking"]
        every = method.score(images, texts)
    drawn, allowed = draw_texts(batch.positives(), 15, step_generator(0, STEP.step, torch.device("cpu")))
    assert drawn.shape == (20, 16) and allowed.all() and 7 not in drawn[2, 1:] and 2 not in drawn[7, 1:]
    total = 0.0
    for image in range(20):
        weights = [math.exp(every[image, text]) for text in drawn[image]]
        total += math.log(sum(weights) / math.exp(every[image, image]))
    assert found.item() == pytest.approx(total / 20, abs=1e-4)


def test_draws_depend_on_seed_and_step_only() -> None:
    method = ieft(false_texts=1)
    images, texts = encoded(method)

    def loss(seed, step):
        method.seed = seed
        with torch.no_grad():
            return method.losses(images, texts, IDS, None, StepInfo(step, 9))["ranking"].item()

    assert loss(0, 3) == loss(0, 3)
    assert len({loss(0, step) for step in range(8)}) > 3 and len({loss(seed, 3) for seed in range(0, 16, 2)}) > 3


def test_every_tensor_gets_a_gradient_but_those_that_the_released_model_never_calls() -> None:
    method = ieft(declare_unused=True).train()
    sum(method.losses(*encoded(method), IDS, None, STEP).values()).backward()
    missing = {name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().max()}
    unused = {name for name, _ in method.named_parameters() if ".unused." in name}
    assert missing == unused and len(unused) == 3 * 12
    without = {name for name, _ in ieft().named_parameters()}
    assert without == {name for name, _ in method.named_parameters()} - unused


# --- size, settings, weights ------------------------------------------------------------------------------------------


def test_parameters_at_full_size_in_closed_form() -> None:
    """Word and patch embeddings, six blocks, pooler, rank head, and three enhancements with what they never call."""
    d, n, h = 768, 144, 2042
    embeddings = (30522 + 40 + 2) * d + 2 * d + 2 * d + (3 * 32 * 32 + 1) * d + d + (n + 1) * d
    vilt = embeddings + 6 * (12 * d * d + 13 * d) + 2 * d + d * d + d
    enhancement = 12 * n * n + 13 * n + 2 * d + 2 * h * d + 9 * 2 * h + h * d
    attention = 8 + 3 * d * d + 9 * 3 * d + d * d
    unused = 2 * d + 2 * attention + d * d + 9 * d
    with torch.device("meta"):
        full, used = (
            build(
                "ieft", IeftOptions(weights=None, declare_unused=declared), Context(None, FeatureOptions(), None, [], 0)
            )
            for declared in (True, False)
        )
    assert full.count() == vilt + d + 1 + 3 * (enhancement + unused) == 100_124_893
    assert used.count() == full.count() - 3 * unused


def test_differences_name_sizes_and_random_weights() -> None:
    assert IeftOptions().differences() == {} and IeftOptions().gpu and not options().gpu
    assert options(false_texts=7).differences() == {
        "sizes": "32 pixels, 16 patches, 5 blocks 32 wide",
        "false_texts": "false texts 7",
        "weights": "random weights",
    }
    assert IeftOptions().without_weights().weights is None and IeftOptions().protocols == ("none", "oracle")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 36}, "36 must be a multiple of the patch size, 8"),
        ({"heads": 3}, "32 channels must be a multiple of 3"),
        ({"image_size": 24}, "9 patches must be a multiple of 4"),
        ({"width": 36}, "multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_a_folder_with_vilts_weights_gives_its_first_blocks(tmp_path) -> None:
    config = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    vilt = ViltModel(ViltConfig(**config, num_hidden_layers=7))
    vilt.save_pretrained(tmp_path / "vilt")
    method = build("ieft", options(weights=str(tmp_path / "vilt")), Context(None, FeatureOptions(), None, [], 0))
    assert torch.equal(method.words.word_embeddings.weight, vilt.embeddings.text_embeddings.word_embeddings.weight)
    assert torch.equal(method.positions, vilt.embeddings.position_embeddings)
    stored, read = (dict(module.named_parameters()) for module in (vilt.encoder.layer[:5], method.stream.blocks))
    assert list(stored) == list(read) and all(torch.equal(read[name], stored[name]) for name in stored)
    ViltModel(ViltConfig(**config, num_hidden_layers=2)).save_pretrained(tmp_path / "short")
    with pytest.raises(UserError, match=r"short: they lack encoder.layer.2.* and 47 other tensors of ViLT"):
        build("ieft", options(weights=str(tmp_path / "short")), Context(None, FeatureOptions(), None, [], 0))
    with pytest.raises(UserError, match="none is not a folder; give one in transformers' layout"):
        build("ieft", options(weights=str(tmp_path / "none")), Context(None, FeatureOptions(), None, [], 0))


def test_small_sizes_are_small() -> None:
    assert set(SMALL) >= {"image_size", "width"} and ieft().count() < 1_500_000
