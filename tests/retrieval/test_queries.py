"""The queries that a run answers best, nearly and worst."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from cmer.retrieval.queries import NEAR, SHOWN, TOP, Query, Selection, described, select, tags
from cmer.retrieval.recall import ranks


def chosen(scores: np.ndarray, owner: np.ndarray) -> Selection:
    return select(scores, owner, ranks(scores, owner)[1])


@given(st.integers(2, 14), st.integers(1, 3), st.integers(0, 99))
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
    worst = [query.rank for query in found.worst]
    assert worst == sorted(worst, reverse=True) and (not worst or worst[0] == max(rank))


def test_queries_of_rank_one_are_ordered_by_their_margin() -> None:
    scores = np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.1, 0.2, 0.9]], np.float32)  # margins 0.1, 0.5 and 0.6
    assert [query.caption for query in chosen(scores, np.arange(3)).best] == [2, 1, 0]


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
    found = described(chosen(scores, np.array([1, 0, 2])), captions, "none", images)
    assert [(one["caption_id"], one["image_id"], one["top"]) for one in found["best"]] == [
        (21, 4, [4, 7, 9]),
        (22, 9, [9, 7, 4]),
    ]
    shared = ["duplicate caption", "same category first"]
    near = {"caption_id": 20, "caption": "a farm", "image_id": 7, "rank": 2.0, "top": [9, 7, 4], "tags": shared}
    assert found["near"] == [near] and found["worst"] == []
