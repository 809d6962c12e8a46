"""BM25 against its formula, word by word."""

import math
import re

import numpy as np
import pytest

from cmer.data.bm25 import BM25
from cmer.errors import UserError

DOCUMENTS = [
    "Many green trees are around a pond.",
    "a pond, a pond and A POND",
    "2 planes are parked near a terminal",
    "many planes",
    "...",
    "many planes",
]
QUERIES = ["a pond", "planes planes near 2 trees", "nothing known here", "", "Many-trees"]


def naive(documents: list[str], queries: list[str]) -> list[list[float]]:
    words = [re.findall(r"\w+", document.lower()) for document in documents]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for query in queries:
        row = []
        for document in words:
            total = 0.0
            for word in re.findall(r"\w+", query.lower()):
                containing = sum(word in other for other in words)
                if word in document:
                    idf = math.log(1 + (len(words) - containing + 0.5) / (containing + 0.5))
                    f = document.count(word)
                    total += idf * f * 2.5 / (f + 1.5 * (0.25 + 0.75 * len(document) / mean))
            row.append(total)
        scores.append(row)
    return scores


def test_scores_are_the_formula_word_by_word() -> None:
    found = BM25(DOCUMENTS).scores(QUERIES)
    assert found.shape == (5, 6) and found.dtype == np.float64
    assert found == pytest.approx(np.array(naive(DOCUMENTS, QUERIES)), abs=1e-12)
    assert found[0].argmax() == 1 and not found[2].any() and not found[:, 4].any()


def test_equal_documents_have_equal_scores() -> None:
    found = BM25(DOCUMENTS).scores(QUERIES)
    assert np.array_equal(found[:, 3], found[:, 5])


def test_queries_do_not_change_scores() -> None:
    fitted = BM25(DOCUMENTS)
    alone = fitted.scores(QUERIES[:1])
    fitted.scores(["pond"] * 100)
    assert np.array_equal(fitted.scores(QUERIES)[:1], alone)


@pytest.mark.parametrize("documents", [["...", ""], []])
def test_documents_without_words_are_refused(documents: list[str]) -> None:
    with pytest.raises(UserError, match="none of the texts to rank has a word"):
        BM25(documents)
