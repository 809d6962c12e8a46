"""SWAN's score of a pair against a computation of one image and one text, and its two text towers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cnn_cases import TEXTS, losses, naive_states, pixels, scores, system
from naive import linear, norm

from cmer.profiling.parameters import count_parameters


def naive_global(tower, maps):
    """Global features of maps [C, H, W] of one image, brought to the middle map's grid before the convolutions."""
    fine, middle, coarse = maps
    enlarged = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    each = [
        torch.einsum("oc,chw->ohw", part.weight[:, :, 0, 0], x) + part.bias[:, None, None]
        for part, x in ((tower.fine, fine[:, ::2, ::2]), (tower.middle, middle), (tower.coarse, enlarged))
    ]
    x = tower.fuse(torch.cat(each)[None])[0].mean((1, 2))
    return linear(linear(x, tower.mlp[0]).relu(), tower.mlp[3])


def naive_local(tower, stem):
    """Local features of the stem [C, H, W] of one image, with the product of weight and tokens written out."""
    x = tower.filter(stem[None])
    maps = [F.adaptive_avg_pool2d(scale(x), 16)[0].flatten(1) for scale in tower.scales]
    tokens, layer, heads = linear(torch.cat(maps), tower.tokens[0]).relu(), tower.attention, 8
    attention = layer.self_attn
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(0, 1)
        for part in (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    )
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    tokens = norm(tokens + linear((weights @ v).transpose(0, 1).flatten(1), attention.out_proj), layer.norm1)
    tokens = norm(tokens + linear(F.gelu(linear(tokens, layer.linear1)), layer.linear2), layer.norm2)
    return (tower.weight.T @ tokens).mean(dim=0)


def naive_text(tower, x):
    """The embedding of one text from the states [L, d] of its words."""
    attention, half, read = tower.attention, x.shape[-1] // 2, []
    for head in (slice(0, half), slice(half, None)):
        q, k, v = (linear(x, part)[:, head] for part in (attention.query, attention.key, attention.value))
        gates = linear(linear(q, attention.gate_query) * linear(k, attention.gate_key), attention.gate).sigmoid()
        scores = (q * gates[:, :half]) @ (k * gates[:, half:]).T / math.sqrt(half)
        read.append((scores.floor() if tower.released else scores).softmax(dim=-1) @ v)

    def enhanced(y):
        return linear(linear(y, tower.mlp[0]).relu(), tower.mlp[3]) + y

    last = enhanced((x + norm(torch.cat(read, dim=-1), tower.norm))[-1])
    if tower.released:
        return last
    joint = []
    for ngrams, size in zip(tower.ngrams, (2, 3), strict=True):
        for start in range(0, len(x), size):
            words = x[start : start + size]
            parts = [ngrams.convolution.weight[:, :, i] @ word for i, word in enumerate(words)]
            joint.append(enhanced(norm(sum(parts) + ngrams.convolution.bias, ngrams.norm).relu()))
    return last + torch.stack(joint).mean(dim=0)


def naive_word_states(method, text):
    ids, gru = method.tokenize([text]).ids[0], method.gru
    forward = naive_states(gru, ids)
    names = [name for name in gru.gru._parameters if name.endswith("_reverse")]
    own = {name.removesuffix("_reverse"): getattr(gru.gru, name) for name in names}
    back = type("Reversed", (), {"gru": type("Gru", (), own), "words": gru.words, "width": gru.width})
    return (forward + naive_states(back, ids.flip(0)).flip(0)) / 2


@pytest.mark.parametrize("released_text", [False, True])
def test_scores_are_those_of_one_image_and_one_text(released_text) -> None:
    method, images = system("swan", released_text=released_text), []
    with torch.no_grad():
        for image in pixels(2):
            maps = [x[0] for x in method.cnn(image[None])]
            tower, stem = method.image, F.max_pool2d(maps[0], 3, stride=2, padding=1)
            joined = torch.cat([naive_local(tower.local_features, stem), naive_global(tower.global_features, maps[2:])])
            images.append(linear(linear(joined, tower.fuse[0]).relu(), tower.fuse[2]))
        texts = [naive_text(method.text, naive_word_states(method, text)) for text in TEXTS]
    expected = [[(v @ t / v.norm() / t.norm()).item() for t in texts] for v in images]
    assert np.allclose(scores(method, pixels(2), TEXTS), expected, atol=1e-5)


def test_in_the_release_neither_scores_nor_ngrams_are_learned() -> None:
    """Rounding has no gradient, and n-grams come behind the words, where nothing is read."""
    method = system("swan", released_text=True).train()
    losses(method)["triplet"].backward()
    still = {n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == {
        name
        for name, _ in method.named_parameters()
        if name.startswith(("text.attention.query", "text.attention.key", "text.attention.gate", "text.ngrams"))
    }


def test_the_published_cnn_is_frozen() -> None:
    """The count is what trains beside the ResNet-50, in closed form for words of 300 and a width of 512."""
    d, half = 512, 256
    mlp = 4 * d * d + 3 * d
    whole = (512 * d + d) + (1024 * d + d) + (2048 * 2 * d + 2 * d) + 4 * d * d + 2 * d + mlp
    convolutions = 64 * 32 + 32 * 32 + 9 * 32 * 32 + 25 * 32 * 64 + 2 * (32 + 32 + 32 + 64)
    local = convolutions + (256 * d + d) + (4 * d * d + 4 * d) + (4 * d * d + 3 * d) + 4 * d + 128 * d
    image = whole + local + (2 * d * d + d) + (d * d + d)
    gated = 3 * (d * d + d) + 2 * (half * half + half) + (half * d + d) + 2 * d
    ngrams = (2 * d * d + 3 * d) + (3 * d * d + 3 * d)
    text = 1350 * 300 + 2 * (3 * d * (300 + d) + 6 * d) + gated + ngrams + mlp
    assert count_parameters("ViT-B-32", "swan") == image + text == 14_458_184
