from itertools import permutations

import numpy as np
import pytest

from cmer.errors import UserError
from cmer.retrieval import recall
from cmer.retrieval.recall import Ranks, expected_hits, optimistic_hits, pessimistic_hits, ranks, recalls


def enumerated(scores: np.ndarray, right: np.ndarray, k: int) -> tuple[float, float, float]:
    """Mean, best and worst hit at k over every way to break the ties of one query."""
    hits = []
    for order in permutations(range(len(scores))):
        ranking = sorted(order, key=lambda item: -scores[item])  # stable: `order` breaks the ties
        hits.append(bool(set(ranking[:k]) & set(np.flatnonzero(right))))
    return float(np.mean(hits)), float(max(hits)), float(min(hits))


def cases(count: int):
    draw = np.random.default_rng(0)
    for _ in range(count):
        images, texts = int(draw.integers(2, 5)), 5
        owner = draw.permutation(np.concatenate([np.arange(images), draw.integers(0, images, texts - images)]))
        yield draw.integers(0, int(draw.integers(1, 5)), (images, texts)).astype(np.float32), owner


def test_hits_equal_the_mean_over_all_orders_of_the_ties():
    for scores, owner in cases(25):
        i2t, t2i = ranks(scores, owner)
        for k in (1, 2, 3, 5):
            right = [(scores[i], owner == i) for i in range(len(scores))]
            expected = np.array([enumerated(*query, k) for query in right])
            assert np.allclose([f(i2t, k) for f in (expected_hits, optimistic_hits, pessimistic_hits)], expected.T)
            right = [(scores[:, j], np.arange(len(scores)) == owner[j]) for j in range(len(owner))]
            expected = np.array([enumerated(*query, k) for query in right])
            assert np.allclose([f(t2i, k) for f in (expected_hits, optimistic_hits, pessimistic_hits)], expected.T)


def test_without_ties_a_hit_is_a_rank_below_k():
    scores = np.array([[0.9, 0.1, 0.8, 0.2], [0.3, 0.4, 0.5, 0.6]])
    i2t, t2i = ranks(scores, [0, 0, 1, 1])
    assert i2t.greater.tolist() == [0, 0]
    assert t2i.greater.tolist() == [0, 1, 1, 0]
    assert not i2t.tied_negatives.any() and not t2i.tied_negatives.any()


def test_closed_form_on_a_hand_made_case():
    # 3 wrong and 2 right answers share the first place: 2 places miss with C(3,2) / C(5,2) = 3/10.
    one = Ranks(*(np.array([value]) for value in (0, 3, 2)))
    assert expected_hits(one, 2)[0] == pytest.approx(0.7)
    assert expected_hits(one, 4)[0] == 1
    above = one._replace(greater=np.array([4]))
    assert expected_hits(above, 4)[0] == 0


def test_six_recalls_in_percent_and_their_mean():
    scores = np.eye(12)
    scores[0] = 0  # the first image scores 0 with all, and its text scores 0 with all
    found = recalls(*ranks(scores, np.arange(12)))
    assert found.i2t_r1 == pytest.approx(100 * (11 + 1 / 12) / 12)
    assert found.t2i_r10 == pytest.approx(100 * (11 + 10 / 12) / 12)
    six = [value for name, value in found.as_dict().items() if name != "mr"]
    assert len(six) == 6
    assert found.mr == pytest.approx(np.mean(six))


def test_a_constant_score_is_chance_not_perfection():
    found = recalls(*ranks(np.zeros((100, 100)), np.arange(100)))
    assert [found.i2t_r1, found.i2t_r5, found.t2i_r10] == pytest.approx([1, 5, 10])


def test_blocks_change_nothing(monkeypatch):
    scores, owner = next(cases(1))
    whole = ranks(scores, owner)
    monkeypatch.setattr(recall, "BLOCK", 1)
    assert np.array_equal(np.concatenate(whole, axis=1), np.concatenate(ranks(scores, owner), axis=1))


def test_a_score_that_is_no_number_is_an_error():
    scores = np.eye(3)
    scores[1, 1] = np.nan
    with pytest.raises(UserError, match="NaN"):
        ranks(scores, np.arange(3))


@pytest.mark.parametrize("owner", [[0, 0, 0], [0, 1], [0, 1, 2]])
def test_owners_must_fit_the_scores(owner):
    with pytest.raises(ValueError):
        ranks(np.zeros((2, 3)), owner)
