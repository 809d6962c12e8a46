"""Losses against the entries of a memory, and the bank's filter and age, against loops over single numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from cmer.losses.bank import Bank
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.hinge import queue_hinge
from cmer.losses.infonce import contrastive_with, memory_infonce
from cmer.losses.memory import PairIds
from cmer.losses.queue import NegativeQueue

SCALE = torch.tensor(6.0)
IDS = PairIds(torch.tensor([0, 1, 2]), torch.tensor([7, 8, 7]), torch.tensor([0, 1, -1]))
PAST = PairIds(torch.tensor([10, 1, 12, 13, 2]), torch.tensor([20, 21, 8, 7, 24]), torch.tensor([0, 2, 2, -1, 1]))


def unit(count, seed):
    return F.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)


IMAGES, TEXTS = unit(3, 0), unit(3, 1)


def filled(memory):
    """A memory with the five past pairs and room for two more."""
    memory.add(unit(5, 2), unit(5, 3), PAST)
    return memory


def negative(i, j, captions):
    """Whether the past pair j may be a negative of pair i."""
    if IDS.images[i] == PAST.images[j] or (captions and IDS.texts[i] == PAST.texts[j]):
        return False
    return not (IDS.labels[i] == PAST.labels[j] and IDS.labels[i] >= 0)


@pytest.mark.parametrize("captions", [False, True])
@pytest.mark.parametrize("memory", [lambda c: NegativeQueue(7, 4, c), lambda c: Bank(7, 4, c, 3)])
def test_queue_and_bank_filter_alike(captions, memory) -> None:
    allowed = filled(memory(captions)).negatives(IDS)
    expected = [[negative(i, j, captions) for j in range(5)] + [False] * 2 for i in range(3)]
    assert allowed.tolist() == expected
    assert 0 < sum(map(sum, expected)) < 15


@pytest.mark.parametrize("positives", [False, True])
def test_bank_entries_are_further_terms_of_the_denominators(positives) -> None:
    bank = filled(Bank(7, 4, positives, 3))
    match = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1]] if positives else torch.eye(3).tolist()).bool()
    total = 0.0
    for own, others, past, matching in ((IMAGES, TEXTS, unit(5, 3), match), (TEXTS, IMAGES, unit(5, 2), match.T)):
        for i in range(3):
            terms = [math.exp(6 * float(own[i] @ other)) for other in others]
            beyond = sum(math.exp(6 * float(own[i] @ past[j])) for j in range(5) if negative(i, j, positives))
            right = [j for j in range(3) if matching[i, j]]
            total -= sum(math.log(terms[j] / (sum(terms) + beyond)) for j in right) / len(right) / 3
    found = contrastive_with(IMAGES, TEXTS, SCALE, match if positives else None, bank, IDS)
    assert found.item() == pytest.approx(total / 2, abs=1e-5)


@pytest.mark.parametrize("positives", [None, IDS.positives()])
def test_an_empty_bank_leaves_the_contrastive_loss(positives) -> None:
    found = contrastive_with(IMAGES, TEXTS, SCALE, positives, Bank(7, 4, True, 3), IDS)
    assert found.item() == pytest.approx(contrastive(IMAGES, TEXTS, SCALE, positives).item(), abs=1e-6)


def test_infonce_of_the_queue_has_the_pair_and_its_negatives_only() -> None:
    total = 0.0
    for own, past in ((IMAGES, unit(5, 3)), (TEXTS, unit(5, 2))):
        for i in range(3):
            right = math.exp(6 * float(IMAGES[i] @ TEXTS[i]))
            beyond = sum(math.exp(6 * float(own[i] @ past[j])) for j in range(5) if negative(i, j, False))
            total -= math.log(right / (right + beyond)) / 6
    assert memory_infonce(IMAGES, TEXTS, SCALE, filled(NegativeQueue(7, 4)), IDS).item() == pytest.approx(
        total, abs=1e-5
    )
    assert memory_infonce(IMAGES, TEXTS, SCALE, NegativeQueue(7, 4), IDS).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [memory_infonce, lambda *a: contrastive_with(*a[:3], None, *a[3:])])
def test_gradients_are_finite_and_reach_the_batch_alone(loss) -> None:
    images, texts = IMAGES.clone().requires_grad_(), TEXTS.clone().requires_grad_()
    queue = filled(NegativeQueue(7, 4))
    loss(images, texts, SCALE, queue, IDS).backward()
    for gradient in (images.grad, texts.grad):
        assert gradient is not None and torch.isfinite(gradient).all() and gradient.abs().sum(dim=1).min() > 0
    assert not any(tensor.requires_grad for tensor in queue.tensors())


@pytest.mark.parametrize("normaliser", ["mean", "mean_violating", "sum_per_pair"])
def test_every_normaliser_of_the_hinge_is_the_sum_written_out(normaliser) -> None:
    queue, total = filled(NegativeQueue(7, 4)), 0.0
    for own, past in ((TEXTS, unit(5, 2)), (IMAGES, unit(5, 3))):
        found = [
            max(0.0, 0.2 - float(IMAGES[i] @ TEXTS[i]) + float(own[i] @ past[j]))
            for i in range(3)
            for j in range(5)
            if negative(i, j, False)
        ]
        violating = sum(hinge > 0 for hinge in found)
        assert 0 < violating < len(found)
        z = {"mean": 3 * 5, "mean_violating": violating, "sum_per_pair": 3}[normaliser]
        total += sum(hinge * math.exp(-0.5 * hinge) for hinge in found) / z
    assert queue_hinge(IMAGES, TEXTS, IDS, queue, 0.2, 0.5, normaliser).item() == pytest.approx(total, abs=1e-5)
    assert queue_hinge(IMAGES, TEXTS, IDS, NegativeQueue(7, 4), 0.2, 0.5, normaliser).item() == 0


def test_a_bank_keeps_no_batch_and_is_due_every_few_steps() -> None:
    bank, due = Bank(7, 4, False, 3), []
    for _ in range(8):
        bank.enqueue(IMAGES, TEXTS, IDS)
        due.append(bank.due())
        if bank.due():
            filled(bank)
            bank.replaced()
    assert due == [False, False, True] * 2 + [False] * 2
    assert set(bank.image_ids.tolist()) == set(PAST.images.tolist())


def test_staleness_is_the_mean_age_of_the_entries_that_were_used() -> None:
    bank = Bank(7, 4, False, 3)
    bank.enqueue(IMAGES, TEXTS, IDS)
    assert bank.staleness() is None  # nothing was in it
    filled(bank)
    bank.replaced()
    for _ in range(3):
        bank.enqueue(IMAGES, TEXTS, IDS)
    assert bank.staleness() == 1  # steps with entries 0, 1 and 2 steps old
    bank.enqueue(IMAGES, TEXTS, IDS)
    assert bank.staleness() == 3
