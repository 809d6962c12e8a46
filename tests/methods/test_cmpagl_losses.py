"""Draws and losses of CMPAGL against independent computations, and that they tell pairs apart."""

import math

import pytest
import torch
import torch.nn.functional as F
from cmpagl_cases import STEP, TEXTS, cmpagl, encoded, losses, naive_fusion, options

from cmer.config.backbones import FeatureOptions
from cmer.features.device import threads
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.cmpagl.draws import hard_negatives, mask_words


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- draws ------------------------------------------------------------------------------------------------------------


def test_fifteen_percent_are_predicted_eight_tenths_masked_one_tenth_random() -> None:
    ids = torch.full((1000, 300), 500)
    ids[:, 0], ids[:, 1], ids[:, 2] = 101, 102, 0
    masked, chosen = mask_words(ids, (0, 101, 102), 103, 30522, generator())
    assert not chosen[:, :3].any() and torch.equal(masked[~chosen], ids[~chosen])
    ordinary = chosen[:, 3:].float()
    assert ordinary.mean().item() == pytest.approx(0.15, abs=0.004)
    inside = masked[chosen]
    assert (inside == 103).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (inside == 500).float().mean().item() == pytest.approx(0.1, abs=0.01)
    randoms = inside[(inside != 103) & (inside != 500)]
    assert randoms.float().mean().item() == pytest.approx(30522 / 2, rel=0.05) and randoms.max() < 30522


def test_hard_negatives_are_drawn_by_their_probability_and_are_never_positives() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0]]).repeat(20_000, 1)
    positives = torch.tensor([[True, False, False, False]]).repeat(20_000, 1)
    rows, columns = hard_negatives(logits, positives, generator())
    assert torch.equal(rows, torch.arange(20_000))
    shares = torch.bincount(columns, minlength=4) / 20_000
    expected = torch.tensor([1.0, 2.0, 0.0]).softmax(dim=0)
    assert shares[0] == 0 and torch.allclose(shares[1:], expected, atol=0.015)


def test_a_pair_whose_whole_batch_is_positive_has_no_negative() -> None:
    positives = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    rows, columns = hard_negatives(torch.randn(3, 3), positives, generator())
    assert rows.tolist() == [0, 2] and columns.tolist() == [2, 0]


def test_a_negative_of_vanishing_probability_can_be_drawn() -> None:
    logits = torch.tensor([[0.0, -400.0, -float("inf")]])
    assert hard_negatives(logits, torch.tensor([[True, False, True]]), generator())[1].tolist() == [1]
    far = torch.tensor([[0.0, -400.0, -500.0, 3.0]])
    assert hard_negatives(far, torch.tensor([[False, False, False, True]]), generator())[1].tolist() == [0]


# --- losses -----------------------------------------------------------------------------------------------------------


def test_itc_and_triplet_are_of_the_projected_means() -> None:
    method = cmpagl()
    with torch.no_grad():
        images, texts = encoded(method)
        found = losses(method, images, texts)
    align = method.alignment
    v = F.normalize(align.image(images["tokens"].mean(dim=1)), dim=-1)
    means = [states[mask].mean(dim=0) for states, mask in zip(texts["states"], texts["mask"], strict=True)]
    s = F.normalize(align.text(torch.stack(means)), dim=-1)
    logits, target = v @ s.T / 0.07, torch.arange(4)
    itc = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert found["itc"].item() == pytest.approx(itc.item(), abs=1e-5)
    hardest = (v @ s.T).fill_diagonal_(-9)
    own = (v * s).sum(dim=1)
    hinges = sum((0.2 - own + hardest.amax(dim=dim)).clamp(min=0) for dim in (0, 1))
    assert found["triplet"].item() == pytest.approx((hinges + 1 - own).mean().item(), abs=1e-5)


def test_masked_words_are_predicted_from_the_text_fused_with_its_image(monkeypatch) -> None:
    method = cmpagl()
    chosen = torch.zeros(4, 8, dtype=torch.bool)
    chosen[0, 2] = chosen[1, 4] = chosen[3, 1] = True
    monkeypatch.setattr(
        "cmer.methods.cmpagl.model.mask_words",
        lambda ids, special, mask, size, generator: (torch.where(chosen, mask, ids), chosen),
    )
    with torch.no_grad():
        images, texts = encoded(method)
        assert texts["ids"].shape == chosen.shape
        found = losses(method, images, texts)["mlm"]
        total, pieces = 0.0, method.text.embeddings.word_embeddings.weight
        for row, place in chosen.nonzero().tolist():
            length = texts["mask"][row].sum()
            ids = texts["ids"][[row], :length].clone()
            ids[0, place] = 103
            fused = naive_fusion(method, images["tokens"][row], method.text(ids, torch.ones_like(ids).bool())[0])
            scores = method.words.transform(fused[place]) @ pieces.T + method.words.bias
            total += F.cross_entropy(scores, texts["ids"][row, place]).item() / 3
        assert found.item() == pytest.approx(total, abs=1e-5)
        other = images | {"tokens": images["tokens"].flip(0)}
        assert losses(method, other, texts)["mlm"].item() != pytest.approx(found.item(), abs=1e-5)


def test_a_batch_without_masked_words_costs_nothing(monkeypatch) -> None:
    nothing = torch.zeros(4, 8, dtype=torch.bool)
    monkeypatch.setattr("cmer.methods.cmpagl.model.mask_words", lambda ids, *_: (ids, nothing))
    method = cmpagl()
    found = losses(method, *encoded(method))["mlm"]
    found.backward()
    assert found.item() == 0


def matched_pairs(method, monkeypatch, batch, step=STEP):
    """Image and text rows of the pairs that L_ITM reads, and the loss."""
    seen = []
    match = method._match
    monkeypatch.setattr(
        method,
        "_match",
        lambda images, texts, i, t: seen.append((i.tolist(), t.tolist())) or match(images, texts, i, t),
    )
    with torch.no_grad():
        images, texts = encoded(method)
        loss = losses(method, images, texts, batch, step)["itm"]
        logits = match(images, texts, *map(torch.tensor, seen[0]))
    monkeypatch.setattr(method, "_match", match)
    return list(zip(*seen[0], strict=True)), logits, loss


@pytest.mark.parametrize("pre_alignment", [True, False])
def test_matching_reads_all_pairs_and_one_negative_per_side(monkeypatch, pre_alignment) -> None:
    method = cmpagl(pre_alignment=pre_alignment)
    same_text = PairIds(torch.arange(4), torch.tensor([0, 1, 0, 3]), torch.zeros(4))
    drawn = set()
    for number in range(12):
        pairs, logits, loss = matched_pairs(method, monkeypatch, same_text, StepInfo(number, 99))
        assert pairs[:4] == [(i, i) for i in range(4)]
        assert [image for image, _ in pairs[4:8]] == [text for _, text in pairs[8:]] == [0, 1, 2, 3]
        assert not same_text.positives()[tuple(torch.tensor(pairs[4:]).T)].any()
        p = logits.sigmoid().log()
        q = (-logits).sigmoid().log()
        assert loss.item() == pytest.approx(-(p[:4].sum() + q[4:].sum()).item() / 12, abs=1e-5)
        drawn |= set(pairs[4:])
    allowed = {(i, j) for i in range(4) for j in range(4) if i != j and {i, j} != {0, 2}}
    assert drawn <= allowed and (pre_alignment or len(drawn) > 7)


def test_negatives_come_from_the_scores_of_the_pre_alignment(monkeypatch) -> None:
    """With embeddings in one direction each, images i and texts i + 1 are as good as certain negatives."""
    method = cmpagl(embedding=4)
    seen = []
    monkeypatch.setattr(
        method, "_match", lambda images, texts, i, t: seen.append((i[4:], t[4:])) or torch.zeros(len(i))
    )
    images, texts = encoded(method)
    losses(method, images | {"embedding": torch.eye(4)}, texts | {"embedding": torch.eye(4).roll(-1, 0)})
    ((image_rows, text_rows),) = seen
    assert image_rows.tolist() == [0, 1, 2, 3, 1, 2, 3, 0] and text_rows.tolist() == [3, 0, 1, 2, 0, 1, 2, 3]


def test_draws_depend_on_seed_and_step_only() -> None:
    method = cmpagl()
    images, texts = encoded(method)
    with torch.no_grad():
        first = losses(method, images, texts)
        torch.randn(3)
        again, later = losses(method, images, texts), losses(method, images, texts, step=StepInfo(4, 10))
        method.seed += 1
        other = losses(method, images, texts)
    assert first == again
    assert first["itc"] == later["itc"] and first["mlm"] != later["mlm"] and first["mlm"] != other["mlm"]


@pytest.mark.parametrize("changes", [{}, {"pre_alignment": False}, {"global_window": False}])
def test_every_trained_tensor_gets_a_gradient(changes) -> None:
    method = cmpagl(**changes).train()
    sum(losses(method, *encoded(method)).values()).backward()
    missing = {name for name, p in method.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert not missing and set(method.trained()) == {name for name, _ in method.named_parameters()}


# --- learning ---------------------------------------------------------------------------------------------------------


def test_texts_differ_before_any_training() -> None:
    """Halfway through MiniLM, the states of [CLS] have cosines of 0.999, from which no training recovered."""
    method = build("cmpagl", options(text_model="minilm"), Context(None, FeatureOptions(), None, [], 0)).eval()
    with torch.no_grad():
        texts = method.encode_texts(method.tokenize(TEXTS))["embedding"]
    assert (texts @ texts.T).triu(1).max() < 0.95


def test_four_pairs_are_learned() -> None:
    method = build("cmpagl", options(), Context(None, FeatureOptions(), None, [], 0)).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    with threads(1):  # small steps, which other threads only slow down
        for step in range(40):
            found = losses(method, *encoded(method), step=StepInfo(step, 40))
            optimizer.zero_grad()
            sum(found.values()).backward()
            optimizer.step()
    assert found["itc"] < 0.3 * math.log(4)
    assert found["triplet"] < 0.2  # 0.4 at a collapse
