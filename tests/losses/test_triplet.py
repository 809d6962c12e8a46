"""Hinges and uniformity against loops over pairs."""

import math

import pytest
import torch

from cmer.losses.triplet import hinges
from cmer.losses.uniformity import uniformity
from cmer.methods.layers.heads import unit


def test_hinges_against_a_loop_over_pairs() -> None:
    torch.manual_seed(0)
    scores = torch.rand(4, 4)
    positives = torch.eye(4, dtype=torch.bool)
    positives[1, 2] = positives[2, 1] = True
    found = hinges(scores, positives)
    for i in range(4):
        for j in range(4):
            negative = not positives[i, j]
            of_image = max(0.0, 0.2 - scores[i, i].item() + scores[i, j].item()) if negative else 0.0
            of_text = max(0.0, 0.2 - scores[j, j].item() + scores[i, j].item()) if negative else 0.0
            assert found[:, i, j].tolist() == pytest.approx([of_image, of_text], abs=1e-6)
    assert (found > 0).any() and (found == 0).sum() > 12


def test_uniformity_against_a_loop_over_pairs() -> None:
    torch.manual_seed(0)
    x = unit(torch.randn(5, 3))
    each = [math.exp(-2 * (x[i] - x[j]).square().sum().item()) for i in range(5) for j in range(5) if i != j]
    assert uniformity(x).item() == pytest.approx(sum(each) / 20, abs=1e-6)
    assert uniformity(torch.ones(3, 1)).item() == pytest.approx(1.0)
