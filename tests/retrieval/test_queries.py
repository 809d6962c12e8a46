"""The queries that a run answers best, nearly and worst."""

import subprocess
import sys
from collections import Counter
from math import exp, log

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from cmer.retrieval.queries import (
    NEAR,
    SHOWN,
    TOP,
    Query,
    Selection,
    described,
    given,
    select,
    similarity_of_captions,
    tags,
)
from cmer.retrieval.recall import Ranks, ranks


def chosen(scores: np.ndarray, owner: np.ndarray) -> Selection:
    return select(scores, owner, ranks(scores, owner)[1])


@hypothesis.given(st.integers(2, 14), st.integers(1, 3), st.integers(0, 99))
def test_groups_of_queries_are_those_of_a_naive_ranking(n_images: int, per_image: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(n_images, n_images * per_image)).astype(np.float32)
    owner = np.repeat(np.arange(n_images), per_image)
    rank = [1 + sum(scores[:, c] > scores[owner[c], c]) for c in range(len(owner))]
    found = chosen(scores, owner)
    for group, low, high in ((found.best, 1, 1), (found.near, 2, NEAR), (found.worst, NEAR + 1, n_images)):
        eligible = {int(owner[c]) for c in range(len(owner)) if low <= rank[c] <= high}
        assert len(group) == min(SHOWN, len(eligible)) == len({query.image for query in group})
        for query in group:
            assert query.rank == rank[query.caption] and low <= query.rank <= high
            assert query.image == owner[query.caption]
            assert query.top == sorted(range(n_images), key=lambda i: -scores[i, query.caption])[:TOP]
    assert given([1, 0], scores, owner, ranks(scores, owner)[1]) == [
        Query(c, int(owner[c]), rank[c], sorted(range(n_images), key=lambda i: -scores[i, c])[:TOP]) for c in (1, 0)
    ]
    worst = [query.rank for query in found.worst]
    assert worst == sorted(worst, reverse=True) and (not worst or worst[0] == max(rank))


def test_queries_of_rank_one_are_ordered_by_their_margin() -> None:
    scores = np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.1, 0.2, 0.9]], np.float32)  # margins 0.1, 0.5 and 0.6
    assert [query.caption for query in chosen(scores, np.arange(3)).best] == [2, 1, 0]


def test_the_rank_among_ties_is_the_expected_one() -> None:
    scores = np.array([[0.5, 0.9], [0.5, 0.1], [0.5, 0.1]], np.float32)
    owner = np.array([0, 1])
    ranked = given([0, 1], scores, owner, Ranks(*np.array([[0, 1], [2, 1], [1, 1]])))
    assert [query.rank for query in ranked] == [2.0, 2.5]


def test_tags_say_what_may_explain_a_rank() -> None:
    texts, owner = ["Two ponds", "a field", "a field", "someone"], np.array([0, 1, 2, 3])
    labels = ["pond", "farm", "farm", ""]
    assert tags(Query(0, 0, 1.0, [0, 1]), texts, owner, labels) == ["count word"]
    assert tags(Query(1, 1, 2.0, [2, 1]), texts, owner, labels) == ["duplicate caption", "same category first"]
    assert tags(Query(3, 3, 2.0, [3, 1]), texts, owner, labels) == []


def test_what_is_written_names_ids_and_not_rows() -> None:
    images = pd.DataFrame({"image_id": [4, 7, 9], "label": ["pond", "farm", "farm"]}).set_index("image_id")
    captions = pd.DataFrame({"caption_id": [20, 21, 22], "image_id": [7, 4, 9], "none": ["a farm", "a pond", "a farm"]})
    scores = np.array([[0.1, 0.9, 0.2], [0.4, 0.8, 0.6], [0.5, 0.3, 0.7]], np.float32)
    groups = chosen(scores, np.array([1, 0, 2]))
    found = described(groups.best, captions, "none", images)
    names = ("caption_id", "image_id", "top", "scene_images", "bleu")
    rows = [[one[name] for name in names] for one in found]
    assert rows == [[21, 4, [4, 7, 9], 1, None], [22, 9, [9, 7, 4], 2, None]]
    shared = ["duplicate caption", "same category first"]
    near = {"caption_id": 20, "caption": "a farm", "image_id": 7, "rank": 2.0, "top": [9, 7, 4], "tags": shared}
    assert described(groups.near, captions, "none", images) == [near | {"scene_images": 2, "bleu": 1.0}]
    assert described([], captions, "none", images) == []


def test_bleu_is_that_of_the_plain_captions_of_the_image_ranked_first() -> None:
    images = pd.DataFrame({"image_id": [4, 7], "label": ["", "farm"]}).set_index("image_id")
    plain = ["a field beside two long roads", "two long roads", "a pond", "a lake"]
    captions = pd.DataFrame({"caption_id": range(4), "image_id": [7, 4, 4, 7], "none": plain, "oracle": "farm. it"})
    (found,) = described([Query(0, 1, 2.0, [0, 1])], captions, "oracle", images)
    assert found["caption"] == "farm. it" and found["scene_images"] == 1
    assert found["bleu"] == pytest.approx(naive_bleu(plain[0], [plain[1], plain[2]]), abs=1e-4) and found["bleu"] > 0
    (found,) = described([Query(1, 0, 2.0, [1, 0])], captions, "none", images)
    assert found["scene_images"] == 0, "images without a label are of no scene"


def naive_bleu(caption: str, references: list[str]) -> float:
    """Papineni et al. 2002, equations 1 and 3, with the smoothing of the docstring; tokens are words."""
    words, others = caption.lower().split(), [reference.lower().split() for reference in references]
    logs, missed = [], 0
    for order in range(1, min(4, len(words)) + 1):
        grams = Counter(zip(*(words[place:] for place in range(order)), strict=False))
        most = [Counter(zip(*(other[place:] for place in range(order)), strict=False)) for other in others]
        matches = sum(min(count, max(one[gram] for one in most)) for gram, count in grams.items())
        if order == 1 and not matches:
            return 0.0
        missed += not matches
        logs.append(log((matches or 0.5**missed) / sum(grams.values())))
    closest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    return min(1.0, exp(1 - closest / len(words))) * exp(sum(logs) / len(logs))


WORDS = st.sampled_from(["many", "Many", "trees", "near", "a", "pond", "bridge"])
TEXTS = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)


@hypothesis.given(TEXTS, st.lists(TEXTS, min_size=1, max_size=5))
def test_similarity_of_captions_is_the_bleu_of_a_naive_count(caption: str, references: list[str]) -> None:
    assert similarity_of_captions(caption, references) == pytest.approx(naive_bleu(caption, references), abs=1e-9)


def test_bleu_of_the_papers_example() -> None:
    references = ["The cat is on the mat.", "There is a cat on the mat."]
    words = similarity_of_captions("the the the the the the the", references)
    assert words == pytest.approx((2 / 7 * 1 / (2 * 6) * 1 / (4 * 5) * 1 / (8 * 4)) ** 0.25), "clipped at two matches"
    assert similarity_of_captions("the cat is on the mat .", references) == pytest.approx(1)
    assert similarity_of_captions("a pond", ["trees"]) == 0


def test_bleu_imports_no_torch_and_planning_none_of_it() -> None:
    code = (
        "import sys; from cmer.retrieval import queries\n"
        "early = 'sacrebleu' in sys.modules; queries.similarity_of_captions('a', ['a'])\n"
        "sys.exit(early or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
