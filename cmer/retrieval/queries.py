"""The queries that a run answers best, nearly and worst, with the images that it ranks first. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmer.retrieval.recall import Ranks
from cmer.retrieval.scores import Indices

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

SHOWN = 10
"""Maximum number of queries of a group."""
TOP = 5
"""Images per query."""
NEAR = 5
"""Last rank of a near miss."""
COUNTS = re.compile(r"\b(one|two|three|four|five|six|seven|eight|nine|ten|several|many|some)\b", re.IGNORECASE)
"""Words that state a number."""


@dataclass(frozen=True)
class Query:
    """A text query and its result.

    Attributes:
        caption: row of the caption.
        image: row of its image.
        rank: rank of its image; the expected one among ties.
        top: rows of the images with the highest scores.
    """

    caption: int
    image: int
    rank: float
    top: list[int]


class Selection(NamedTuple):
    """Queries whose image ranks first, from second to `NEAR`th, and last."""

    best: list[Query]
    near: list[Query]
    worst: list[Query]


def select(scores: NDArray[np.floating[Any]], owner: Indices, found: Ranks) -> Selection:
    """The best queries, the nearest misses and the worst queries.

    A group has at most one query per image, so that equal captions do not fill it. Queries of equal rank are ordered by
    the margin of their image over the best other one; the nearest misses by that margin alone.

    Args:
        scores: [n_images, n_captions] similarity.
        owner: [n_captions] row of the image of each caption.
        found: text-to-image ranks of the scores.
    """
    rank = _expected(found)
    columns = np.arange(scores.shape[1])
    others = scores.copy()
    others[owner, columns] = -np.inf
    margin = scores[owner, columns] - others.max(axis=0)
    order = np.lexsort((columns, -margin, rank))
    missed = np.lexsort((columns, -margin))
    near = missed[(rank[missed] > 1) & (rank[missed] <= NEAR)]
    first = order[rank[order] <= 1]
    last = order[rank[order] > NEAR][::-1]
    return Selection(*(_shown(group, scores, owner, rank) for group in (first, near, last)))


def _shown(order: Indices, scores: NDArray[np.floating[Any]], owner: Indices, rank: NDArray[np.float64]) -> list[Query]:
    firsts: dict[int, int] = {}
    for caption in order.tolist():
        firsts.setdefault(int(owner[caption]), caption)
    return [_query(caption, scores, owner, rank) for caption in list(firsts.values())[:SHOWN]]


def given(captions: Sequence[int], scores: NDArray[np.floating[Any]], owner: Indices, found: Ranks) -> list[Query]:
    """The queries of these captions, given by their rows; see `select`."""
    rank = _expected(found)
    return [_query(caption, scores, owner, rank) for caption in captions]


def _expected(found: Ranks) -> NDArray[np.float64]:
    """Expected rank under random order of ties."""
    return np.asarray(1 + found.greater + found.tied_negatives / 2)


def _query(caption: int, scores: NDArray[np.floating[Any]], owner: Indices, rank: NDArray[np.float64]) -> Query:
    top = np.argsort(-scores[:, caption], kind="stable")[:TOP].tolist()
    return Query(caption=caption, image=int(owner[caption]), rank=float(rank[caption]), top=top)


def described(
    queries: Sequence[Query], captions: pd.DataFrame, protocol: str, images: pd.DataFrame
) -> list[dict[str, Any]]:
    """Queries as `cmer evaluate` writes them: with ids, text, rank, first images, and what may explain the rank.

    `scene_images` is the number of test images of the query's scene class, 0 if its image has no label. `bleu` compares
    the plain caption with those of the image that ranks first; see `similarity_of_captions`. It is null where that is
    the query's own image, whose captions include the query.

    Args:
        queries: the queries.
        captions: table of the test captions.
        protocol: label protocol of the queries, a column of the table.
        images: rows of images.csv of the test split, with their ids as index.
    """
    texts, plain, labels = captions[protocol].tolist(), captions["none"].tolist(), images["label"].tolist()
    owner = images.index.get_indexer(pd.Index(captions["image_id"]))
    return [
        {
            "caption_id": int(captions["caption_id"].iloc[query.caption]),
            "caption": texts[query.caption],
            "image_id": int(images.index[query.image]),
            "rank": query.rank,
            "top": images.index[query.top].tolist(),
            "tags": tags(query, texts, owner, labels),
            "scene_images": labels.count(labels[query.image]) if labels[query.image] else 0,
            "bleu": _first_bleu(query, plain, owner),
        }
        for query in queries
    ]


def tags(query: Query, texts: Sequence[str], owner: Indices, labels: Sequence[str]) -> list[str]:
    """What may explain the rank of a query.

    Args:
        query: the query.
        texts: all captions.
        owner: row of the image of each caption.
        labels: scene labels of all images.
    """
    text = texts[query.caption]
    shared = any(other == text and image != query.image for other, image in zip(texts, owner.tolist(), strict=True))
    first = query.top[0]
    same = bool(labels[query.image]) and first != query.image and labels[first] == labels[query.image]
    found = {"count word": COUNTS.search(text), "duplicate caption": shared, "same category first": same}
    return [tag for tag, applies in found.items() if applies]


def _first_bleu(query: Query, texts: Sequence[str], owner: Indices) -> float | None:
    """BLEU of a query against the captions of the image that ranks first, or None if that is its own image."""
    first = query.top[0]
    if first == query.image:
        return None
    references = [texts[row] for row in np.flatnonzero(owner == first).tolist()]
    return round(similarity_of_captions(texts[query.caption], references), 4)


def similarity_of_captions(caption: str, references: Sequence[str]) -> float:
    """Sentence BLEU of a caption against several captions of one image, from 0 to 1.

    Geometric mean of the precisions of its 1- to 4-grams, each clipped by the reference that has it most often, times
    the brevity penalty (Papineni et al. 2002, ACL). Chosen here: lower case; sacrebleu's tokenizer `13a`; the k-th
    order without a match counts 2**-k matches (method 3 of Chen and Cherry 2014, WMT; without any match, BLEU is 0);
    and no orders longer than the caption.
    """
    return float(_metric().sentence_score(caption, list(references)).score) / 100


@cache
def _metric() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU  # planning has no need of it

    return BLEU(lowercase=True, effective_order=True)
