import pytest
import torch
import torch.nn.functional as F

from cmer.losses.batch.optimised_triplet import optimised_triplet

SCALE = torch.tensor(14.3)


def units(seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


def naive(images, texts, positives, weight):
    total = 0.0
    for i in range(len(images)):
        own = float(images[i] @ texts[i])
        others = [j for j in range(len(images)) if not positives[i][j]]
        if others:
            total += max(0.0, 0.2 - own + max(float(images[i] @ texts[j]) for j in others))
            total += max(0.0, 0.2 - own + max(float(images[j] @ texts[i]) for j in others))
        total += weight * (1 - own)
    return total / len(images)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_hinges_and_intra_class_term_are_those_of_a_loop(weight) -> None:
    images, texts = units(0), units(1)
    found = optimised_triplet(images, texts, SCALE, None, weight)
    assert found.item() == pytest.approx(naive(images, texts, torch.eye(6).tolist(), weight), abs=1e-6)


def test_positives_are_no_negatives() -> None:
    images, texts = units(2), units(3)
    same = torch.eye(6, dtype=torch.bool)
    same[0, 1] = same[1, 0] = same[3, 5] = same[5, 3] = True
    found = optimised_triplet(images, texts, SCALE, same)
    assert found.item() == pytest.approx(naive(images, texts, same.tolist(), 1.0), abs=1e-6)
    assert found < optimised_triplet(images, texts, SCALE)


def test_a_batch_without_negatives_has_the_intra_class_term_alone() -> None:
    images, texts = units(4).requires_grad_(), units(5)
    found = optimised_triplet(images, texts, SCALE, torch.ones(6, 6, dtype=torch.bool))
    assert found.item() == pytest.approx((1 - (images * texts).sum(dim=1)).mean().item(), abs=1e-6)
    found.backward()
    assert torch.isfinite(images.grad).all()


def test_far_negatives_and_perfect_matches_cost_nothing() -> None:
    eye = torch.eye(4)
    assert optimised_triplet(eye, eye, SCALE).item() == 0
    assert optimised_triplet(eye, eye.roll(1, 0), SCALE).item() == pytest.approx(2 * 1.2 + 1)
