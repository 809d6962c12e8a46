"""BM25, a lexical score of documents for queries (Robertson and Zaragoza, 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

from cmer.errors import UserError

K1, B = 1.5, 0.75
"""Saturation of the term frequency and weight of the document length: usual values, chosen here."""


class BM25:
    """Term weights that are fitted on documents; queries change nothing.

    score(q, d) = sum over the words t of q of idf(t) f (K1 + 1) / (f + K1 (1 - B + B |d| / mean |d|)),
    where f counts t in d, and idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5)) for a word in n of N documents, which is
    positive for every n. A word that a query repeats counts each time. Words are runs of letters and digits in lower
    case.

    Args:
        documents: N texts.

    Attributes:
        idf: [V] of each word of the vocabulary.
        documents: sparse matrix [N, V] of the summands of every score, without the query's counts.

    Raises:
        UserError: no document has a word.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        self._words = CountVectorizer(token_pattern=r"(?u)\w+")
        try:
            self.documents = self._words.fit_transform(documents).astype(np.float64)
        except ValueError:
            raise UserError("none of the texts to rank has a word; BM25 needs words") from None
        words, tf = self.documents.indices, self.documents.data
        frequency = np.bincount(words)
        self.idf = np.log1p((len(documents) - frequency + 0.5) / (frequency + 0.5))
        lengths = self.documents.sum(axis=1).A1
        each = np.repeat(lengths / lengths.mean(), np.diff(self.documents.indptr))  # of the document of every entry
        self.documents.data = self.idf[words] * tf * (K1 + 1) / (tf + K1 * (1 - B + B * each))

    def counts(self, texts: Sequence[str]) -> Any:
        """Sparse matrix [n, V]: how often each word of the vocabulary occurs in each text."""
        return self._words.transform(texts)

    def scores(self, queries: Sequence[str]) -> NDArray[np.float64]:
        """Scores [n queries, N documents]."""
        found: NDArray[np.float64] = (self.counts(queries) @ self.documents.T).toarray()
        return found
