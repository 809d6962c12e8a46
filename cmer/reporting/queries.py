"""The queries of a run that it answers best, nearly and worst, with the images that it ranks first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmer.data.frames import IMAGES, QUERIES, read_frame
from cmer.retrieval.recall import ranks
from cmer.retrieval.scores import similarity

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


def select(scores: NDArray[np.float32], owner: NDArray[np.int64]) -> Selection:
    """The best queries, the nearest misses and the worst queries.

    A group has at most one query per image, so that equal captions do not fill it. Queries of equal rank are ordered by
    the margin of their image over the best other one; the nearest misses by that margin alone.

    Args:
        scores: [n_images, n_captions] similarity.
        owner: [n_captions] row of the image of each caption.
    """
    found = ranks(scores, owner)[1]
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


class Answers(NamedTuple):
    """The queries of a run with what they are about.

    Attributes:
        texts: all queries.
        owner: [n_captions] row of the image of each.
        images: rows of images.csv of the test split, in the order of embeddings.
        groups: the chosen queries.
    """

    texts: list[str]
    owner: NDArray[np.int64]
    images: pd.DataFrame
    groups: Selection


def read_answers(results: Path, dataset: str, run: str, seed: int, protocol: str) -> Answers | None:
    """The queries of a run and seed under a label protocol.

    None where no file has them: a reranked run has no embeddings of its own, and rich texts are no captions.

    Raises:
        UserError: a file is missing or damaged.
    """
    embeddings = results / f"embeddings/{dataset}/{run}/seed{seed}.safetensors"
    queries = read_frame(results / f"captions/{dataset}.queries.csv", QUERIES)
    if not embeddings.is_file() or protocol not in queries:
        return None
    images = images_of_test(results / f"data/{dataset}")
    owner = pd.Index(images["image_id"]).get_indexer(pd.Index(queries["image_id"]))
    return Answers(queries[protocol].tolist(), owner, images, select(similarity(embeddings, protocol), owner))


def images_of_test(folder: Path) -> pd.DataFrame:
    """Rows of a prepared dataset's images.csv of the test split, in the order of embeddings."""
    images = read_frame(folder / "images.csv", IMAGES)
    return images[images["split"] == "test"].reset_index(drop=True)


def _shown(
    order: NDArray[np.int64], scores: NDArray[np.float32], owner: NDArray[np.int64], rank: NDArray[np.float64]
) -> list[Query]:
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


def tags(query: Query, texts: Sequence[str], owner: NDArray[np.int64], labels: Sequence[str]) -> list[str]:
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
