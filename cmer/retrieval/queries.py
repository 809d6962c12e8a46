"""The queries that a run answers best, nearly and worst, with the images that it ranks first. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmer.retrieval.recall import Ranks
from cmer.retrieval.scores import Indices

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
    rank = 1 + found.greater + found.tied_negatives / 2
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
    return [
        Query(
            caption=caption,
            image=image,
            rank=float(rank[caption]),
            top=np.argsort(-scores[:, caption], kind="stable")[:TOP].tolist(),
        )
        for image, caption in list(firsts.items())[:SHOWN]
    ]


def described(selection: Selection, captions: pd.DataFrame, protocol: str, images: pd.DataFrame) -> dict[str, Any]:
    """The chosen queries as `cmer evaluate` writes them: by group, with ids, text, rank, first images and tags.

    Args:
        selection: the queries.
        captions: table of the test captions.
        protocol: label protocol of the queries, a column of the table.
        images: rows of images.csv of the test split, with their ids as index.
    """
    texts, labels = captions[protocol].tolist(), images["label"].tolist()
    owner = images.index.get_indexer(pd.Index(captions["image_id"]))
    return {
        group: [
            {
                "caption_id": int(captions["caption_id"].iloc[query.caption]),
                "caption": texts[query.caption],
                "image_id": int(images.index[query.image]),
                "rank": query.rank,
                "top": images.index[query.top].tolist(),
                "tags": tags(query, texts, owner, labels),
            }
            for query in queries
        ]
        for group, queries in selection._asdict().items()
    }


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
