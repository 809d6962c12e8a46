"""HVSA's score of a pair, and its losses, against a computation of one image and one text."""

import math

import numpy as np
import pytest
import torch
from cnn_cases import TEXTS, encoded, losses, naive_sentence, pixels, scores, system

from cmer.config.backbones import FeatureOptions
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.methods.hvsa.options import HvsaOptions
from cmer.profiling.parameters import count_parameters

LOSS_WEIGHTS = 2 * 64 + 64 * 128 + 128 * 2 + 2


def test_both_counts_that_the_printed_one_fits() -> None:
    assert count_parameters("ViT-B-32", "hvsa") == 35_012_418
    with torch.device("meta"):
        options = HvsaOptions(input_biases=True, image_weights=None)
        method = build("hvsa", options, Context(None, FeatureOptions(), None, [], 0))
    assert sum(p.numel() for p in method.weights.parameters()) == LOSS_WEIGHTS == 8578
    assert method.count() - LOSS_WEIGHTS == 35_011_040


def test_word_vectors_train_on_request() -> None:
    method = system("hvsa", train_words=False).train()
    sum(losses(method).values()).backward()
    assert method.text.gru.words.weight.grad is None and "text.gru.words.weight" not in method.trained()
    assert system("hvsa").count() - method.count() == method.vocabulary.size * 12


def naive_attention(attention, x):
    """The attention of one map [C, H, W], slot by slot."""
    entered = torch.einsum("oc,chw->ohw", attention.enter.weight[:, :, 0, 0], x) + attention.enter.bias[:, None, None]
    slots = torch.stack([row @ entered.flatten(1) for row in attention.to_slots.weight[:, :, 0]])
    slots = torch.stack([slot.exp() / slot.exp().sum() for slot in slots])
    read = attention.from_slots.weight[:, :, 0] @ (slots / slots.sum(dim=0))
    left, norm = attention.leave.weight[:, :, 0, 0] @ read, attention.norm
    scaled = (left - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
    return (x + (scaled * norm.weight[:, None] + norm.bias[:, None]).view(x.shape)).relu()


def test_scores_are_those_of_one_image_and_one_text() -> None:
    method = system("hvsa")
    with torch.no_grad():
        maps = [naive_attention(method.attention, method.cnn(image[None])[-1][0]) for image in pixels(2)]
        images = [method.image.weight @ x.mean((1, 2)) + method.image.bias for x in maps]
        texts = [naive_sentence(method.text, method.tokenize([text]).ids[0]) for text in TEXTS]
    expected = [[(v @ t / v.norm() / t.norm()).item() for t in texts] for v in images]
    assert np.allclose(scores(method, pixels(2), TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("weighting", ["learned", "equal"])
def test_losses_in_closed_form(weighting) -> None:
    method = system("hvsa", weighting=weighting)
    with torch.no_grad():
        found, (images, texts) = losses(method), encoded(method)
    s, alignment, spread = images @ texts.T, 0.0, 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                for h in (max(0, 0.2 + s[i, j] - s[i, i]), max(0, 0.2 + s[i, j] - s[j, j])):
                    alignment += float(h) * math.exp(-0.5 * h) / 16
                spread += math.exp(-2 * float((images[i] - images[j]).square().sum())) / 12
    weights = torch.ones(2)
    if weighting == "learned":
        with torch.no_grad():
            weights = method.weights(torch.tensor([alignment, spread])).exp()
            weights = weights / weights.sum()
    expected = [weights[0].item() * alignment, weights[1].item() * spread]
    assert [found["alignment"].item(), found["uniformity"].item()] == pytest.approx(expected, abs=1e-5)
