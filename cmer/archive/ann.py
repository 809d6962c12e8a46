"""Approximate search of large archives: LanceDB's IVF-PQ index, with its recall measured against exact search."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cmer.archive.scan import Scan, write_vectors
from cmer.archive.settings import Encoder, Vectors
from cmer.archive.store import Archive

EXACT_UP_TO = 1_000_000
"""Rows up to which all vectors are read for each query."""
TARGET = 0.95
"""Recall@10 that is aimed at."""
PROBES = (10, 20, 40, 80, 160, 320)
"""Numbers of partitions that a query reads; the smallest that reaches the target is kept."""
REFINED = 10
"""Candidates per result that are scored again with the vectors themselves."""
QUERIES = 100
"""Texts, and as many images, on which the recall is measured."""
NEAREST = 10


class Recall(NamedTuple):
    """Recall@10 of the ANN index against exact search, for queries that are texts, and images of the archive."""

    probes: int
    texts: float
    images: float

    def __str__(self) -> str:
        """A sentence for people."""
        shares = f"{self.texts:.3f} of {QUERIES} texts, {self.images:.3f} of {QUERIES} images"
        return f"ANN index: recall@{NEAREST} against exact search {shares}, with {self.probes} partitions per query"


def bring_up_to_date(archive: Archive, model: Encoder, exact_up_to: int) -> Recall | None:
    """Write the vectors for exact search, and build or check the ANN index above `exact_up_to` rows.

    Returns:
        the recall with the chosen number of partitions; None for a smaller archive.

    Raises:
        StoreError: the archive cannot be read or written, or its object store falls silent.
    """
    return archive.place.asked(lambda: _bring_up_to_date(archive, model, exact_up_to))


def _bring_up_to_date(archive: Archive, model: Encoder, exact_up_to: int) -> Recall | None:
    wanted = archive.count() > exact_up_to
    if wanted and not archive.table.list_indices():
        archive.index_vectors()
    if not archive.place.shared:  # elsewhere, each machine that searches exactly has its own
        write_vectors(archive)
    archive.change(version=archive.table.version, probes=(archive.settings.probes or PROBES[0]) if wanted else 0)
    return _choose(archive, _queries(archive, model)) if wanted else None


def nearest_approximately(
    archive: Archive, query: Vectors, top: int, where: str | None, columns: Sequence[str]
) -> pa.Table:
    """Columns of about the `top` nearest rows that satisfy `where` (SQL), the best first, with their `_distance`.

    The distance is 1 - cosine. Rows that the index does not hold yet are searched exactly.
    """
    search = archive.table.search(query, vector_column_name="vector").distance_type("cosine")
    search = search.nprobes(archive.settings.probes).refine_factor(REFINED)
    search = search if where is None else search.where(where, prefilter=True)
    return search.limit(top).select([*columns, "_distance"]).to_arrow()


def _queries(archive: Archive, model: Encoder) -> Vectors:
    """Captions of drawn scenes, then images of the archive."""
    with resources.files("cmer.profiling").joinpath("captions.csv").open(encoding="utf-8") as file:
        texts = [row["caption"] for row in csv.DictReader(file)][:QUERIES]
    offsets = np.random.default_rng(0).choice(archive.count(), QUERIES)
    images = archive.table.take_offsets(offsets.tolist()).select(["vector"]).to_arrow()["vector"]
    return np.concatenate([model.encode_texts(texts), np.array(images.to_pylist(), dtype=np.float32)])


def _choose(archive: Archive, queries: Vectors) -> Recall:
    """Set the number of partitions that a query reads."""
    scan = Scan.open(archive)
    exact = [set(scan.nearest(query, NEAREST)[0].tolist()) for query in queries]
    for probes in PROBES:
        archive.change(probes=probes)
        found = [
            set(nearest_approximately(archive, query, NEAREST, None, ["_rowid"])["_rowid"].to_pylist())
            for query in queries
        ]
        shares = [len(near & true) / len(true) for near, true in zip(found, exact, strict=True)]
        recall = Recall(probes, float(np.mean(shares[:QUERIES])), float(np.mean(shares[QUERIES:])))
        if min(recall.texts, recall.images) >= TARGET:
            break
    return recall
