"""CMPAGL tells pairs apart, and does not collapse to one embedding for all."""

import math

import torch
from cmpagl_cases import IDS, TEXTS, encoded, options

from cmer.config.backbones import FeatureOptions
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build


def made(**changes):
    return build("cmpagl", options(**changes), Context(None, FeatureOptions(), None, [], 0))


def test_texts_differ_before_any_training() -> None:
    """Halfway through MiniLM, the states of [CLS] have cosines of 0.999, from which no training recovered."""
    method = made(text_model="minilm").eval()
    with torch.no_grad():
        texts = method.encode_texts(method.tokenize(TEXTS))["embedding"]
    assert (texts @ texts.T).triu(1).max() < 0.95


def test_four_pairs_are_learned() -> None:
    method = made().train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for step in range(60):
        found = method.losses(*encoded(method), IDS, None, StepInfo(step, 60))
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
    assert found["itc"] < 0.3 * math.log(4)
    assert found["triplet"] < 0.2  # 0.4 at a collapse
