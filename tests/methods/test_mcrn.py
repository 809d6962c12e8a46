"""MCRN's score of a pair, and its losses, against a computation of one image and one text."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cnn_cases import TEXTS, encoded, losses, naive_multiscale, naive_sentence, pixels, scores, system
from naive import linear
from torch import nn

from cmer.profiling.parameters import count_parameters


def test_the_count_is_the_printed_one() -> None:
    assert count_parameters("ViT-B-32", "mcrn") == 52_346_599


def test_the_unused_parts_are_the_audio_tower_the_classifier_and_maps_without_effect() -> None:
    method, without = system("mcrn", unused_parts=True).train(), system("mcrn")
    width, cnn = method.cnn.channels[-1], sum(p.numel() for p in method.cnn.parameters())
    assert method.count() - without.count() == cnn + (width + 1) * 1000 + (width + 1) * 512 + 4 * (512 + 1) * 512
    sum(losses(method).values()).backward()
    unused = {n for n, p in method.named_parameters() if p.grad is None and not n.endswith("bias_hh_l0")}
    assert unused == {n for n, _ in method.named_parameters() if n.startswith("unused.")}


def reference_layer(layer):
    """Torch's pre-norm layer on a sequence, with the weights of `layer`, any queries and keys, and LayerNorm after."""
    whole = nn.TransformerEncoderLayer(512, 8, 768, norm_first=True, batch_first=True, activation="relu")
    attention, inner = layer.attention, layer.feed_forward
    with torch.no_grad():
        whole.self_attn.in_proj_weight[1024:].copy_(attention[1].weight)
        whole.self_attn.in_proj_bias[1024:].copy_(attention[1].bias)
    for part, own in (
        (whole.self_attn.out_proj, attention[2]),
        (whole.norm1, attention[0]),
        (whole.norm2, inner[0]),
        (whole.linear1, inner[1]),
        (whole.linear2, inner[4]),
    ):
        part.load_state_dict(own.state_dict())
    return nn.Sequential(whole, layer.norm).eval()


def naive_code(transfer, x):
    norm = transfer.norm
    x = (x / x.norm() - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    z = reference_layer(transfer.enter)(x[None, None])[0, 0]
    weights = linear(F.gelu(linear(z, transfer.mix[0])), transfer.mix[3]).sigmoid()
    mixed = sum(weight * (z @ pattern) for weight, pattern in zip(weights, transfer.patterns, strict=True))
    return reference_layer(transfer.leave)(mixed[None, None])[0, 0]


def test_scores_are_those_of_one_image_and_one_text() -> None:
    method = system("mcrn")
    with torch.no_grad():
        towers = [naive_multiscale(method.image, [x[0] for x in method.cnn(image[None])[1:]]) for image in pixels(2)]
        images = [naive_code(method.transfer, x) for x in towers]
        sentences = [naive_sentence(method.text, method.tokenize([text]).ids[0]) for text in TEXTS]
        texts = [naive_code(method.transfer, x) for x in sentences]
    expected = [[(v @ t / v.norm() / t.norm()).item() for t in texts] for v in images]
    assert np.allclose(scores(method, pixels(2), TEXTS), expected, atol=1e-4)


def test_losses_in_closed_form() -> None:
    """With dropout off, but in training, where images have a second view."""
    method = system("mcrn", alignment=3.0).train()
    for module in method.modules():
        if isinstance(module, nn.Dropout | nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    method.text.gru.dropout = 0.0
    with torch.no_grad():
        (images, texts), found = encoded(method), losses(method)
        mirrored = method.eval().encode_images(pixels().flip(-1))["codes"]
    g, s = images["codes"], texts["codes"]
    cosines = F.normalize(g, dim=1) @ F.normalize(s, dim=1).T
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    hinges = [max(0, 0.2 + float(cosines[i, j] - cosines[k, k])) for i, j in pairs for k in (i, j)]
    p, q = (s / 0.2).softmax(dim=1), (g / 0.2).softmax(dim=1)
    expected = {
        "triplet": sum(hinges) / 2,
        "views": 3 * (g - mirrored).square().mean().item(),
        "modalities": 3 * ((p * (p / q).log()).mean() + (g - s).square().mean()).item(),
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-4)


def test_evaluation_encodes_one_view_and_keeps_unit_codes() -> None:
    method = system("mcrn")
    with torch.no_grad():
        images, texts = encoded(method)
    assert set(images) == set(texts) == {"codes"}
    assert torch.allclose(method.scored_part(images).norm(dim=1), torch.ones(4), atol=1e-6)
