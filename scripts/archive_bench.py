"""Latency of searches in an archive, beside faiss on the same vectors.

    python scripts/archive_bench.py EMBEDDINGS ROWS FOLDER [OUT.json]

EMBEDDINGS is a Parquet file of real embeddings (cmer export-archive). Its vectors are repeated with Gaussian noise of a
tenth of a vector's length until there are ROWS. FOLDER is where the archive is built, or a URL (s3://bucket/name), for
which faiss is left out; it must not exist. Queries are other noisy copies. Times are of one client unless a number of
clients is given; threads are those of OMP_NUM_THREADS.

    python scripts/archive_bench.py FOLDER

prints only the memory of processes that search an existing archive, exactly and with its index.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmer.archive import ann
from cmer.archive.search import Searcher
from cmer.archive.settings import Settings, Vectors
from cmer.archive.store import Archive, schema

QUERIES = 200
SATURATED = 800
"""Queries of several clients together."""
NOISE = 0.1
PART = 50_000
"""Rows that are appended at once."""
TOP = 10


class Noisy:
    """Stands for the model: its texts are noisy copies of real embeddings too."""

    name = digest = "noisy copies"

    def __init__(self, real: Vectors) -> None:
        self.real, self.dim, self.random = real, real.shape[1], np.random.default_rng(0)

    def copies(self, count: int) -> Vectors:
        """`count` unit vectors."""
        chosen = self.real[self.random.integers(0, len(self.real), count)]
        noisy = chosen + self.random.standard_normal(chosen.shape, dtype=np.float32) * NOISE / self.dim**0.5
        unit: Vectors = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
        return unit

    def encode_texts(self, texts: list[str]) -> Vectors:
        """As many copies as there are texts."""
        return self.copies(len(texts))


def build(folder: str, model: Noisy, rows: int) -> Archive:
    """An archive of `rows` copies."""
    settings = Settings(folder=folder, source="none", model=model.name, digest=model.digest, dim=model.dim)
    archive = Archive.create(folder, settings)
    columns = schema(model.dim)
    for start in range(0, rows, PART):
        size = min(PART, rows - start)
        none = {field.name: pa.nulls(size, field.type) for field in columns}
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(model.copies(size).ravel()), model.dim)
        ids = [f"{number:020x}" for number in range(start, start + size)]
        same = {"label": "", "box": [0, 0, 224, 224], "scene_size": [224, 224], "tiles": 1}
        filled = {name: pa.array([value] * size, columns.field(name).type) for name, value in same.items()}
        varied = {name: pa.array(range(start, start + size), pa.int64()) for name in ("size", "mtime_ns")}
        texts = {"id": ids, "file": ids, "sha256": ids}
        archive.add(pa.table(none | filled | varied | texts | {"vector": vectors}, schema=columns))
    archive.compact()
    return archive


def latency(search: Callable[[Vectors], Any], queries: Vectors) -> dict[str, float]:
    """Milliseconds of one query after another, after ten that do not count."""
    for query in queries[:10]:
        search(query)
    times = []
    for query in queries:
        start = time.perf_counter()
        search(query)
        times.append(1000 * (time.perf_counter() - start))
    return {f"p{share}_ms": round(float(np.percentile(times, share)), 2) for share in (50, 95)}


def saturated(search: Callable[[Vectors], Any], queries: Vectors, clients: int) -> float:
    """Queries per second of several clients at once."""
    many = np.resize(queries, (SATURATED, queries.shape[1]))
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(search, many))
    return round(SATURATED / (time.perf_counter() - start), 1)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its result."""
    start = time.perf_counter()
    result = run()
    return round(time.perf_counter() - start, 1), result


def measured(search: Callable[[Vectors], Any], queries: Vectors) -> dict[str, float]:
    """Latency, and queries per second of 8 and 32 clients."""
    rates = {f"queries_per_s_{clients}": saturated(search, queries, clients) for clients in (8, 32)}
    return latency(search, queries) | rates


def with_faiss(vectors: Vectors, queries: Vectors) -> dict[str, Any]:
    """The same with faiss in memory: all vectors compared, and HNSW."""
    flat, graph = (
        faiss.IndexFlatIP(vectors.shape[1]),
        faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT),
    )
    flat.add(vectors)
    seconds, _ = timed(lambda: graph.add(vectors))
    graph.hnsw.efSearch = 64
    true, near = (index.search(queries, TOP)[1] for index in (flat, graph))
    recall = float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(true, near, strict=True)]))
    return {
        "faiss exact": measured(lambda query: flat.search(query[None], TOP), queries),
        "faiss HNSW": measured(lambda query: graph.search(query[None], TOP), queries)
        | {"build_s": seconds, "recall": round(recall, 4)},
    }


def main(embeddings: Path, rows: int, folder: str) -> dict[str, Any]:
    """All figures of one size."""
    real = np.array(pq.read_table(embeddings, columns=["vector"])["vector"].to_pylist(), dtype=np.float32)
    model = Noisy(real)
    written, archive = timed(lambda: build(folder, model, rows))
    table_bytes = sum(file.stat().st_size for file in Path(folder).glob("images.lance/**/*") if file.is_file())
    queries = model.copies(QUERIES)
    mapped, exact = timed(lambda: Searcher(archive, exact=True))
    rates = measured(lambda query: exact.search(query, TOP), queries)
    found: dict[str, Any] = {"rows": rows, "dim": model.dim, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    found["table"] = {"write_s": written} | ({"bytes_per_vector": round(table_bytes / rows)} if table_bytes else {})
    found["exact"] = rates | {"map_s": mapped, "bytes_per_vector": 2 * model.dim + 8, "peak_gb": peak()}
    found["exact"]["searcher_gb"] = searcher(folder, exact=True)
    archive.table.checkout_latest()
    built, recall = timed(lambda: ann.bring_up_to_date(archive, model, exact_up_to=0))
    near = Searcher(Archive.open(folder))
    first, _ = timed(lambda: near.search(queries[0], TOP))
    found["IVF-PQ"] = measured(lambda query: near.search(query, TOP), queries)
    found["IVF-PQ"] |= {
        "build_s": built,
        "first_s": first,
        "probes": recall.probes,
        "recall": min(recall.texts, recall.images),
        "searcher_gb": searcher(folder, exact=False),
    }
    if archive.place.shared:
        return found
    vectors = np.concatenate([batch["vector"].flatten().to_numpy() for batch in archive.read(["vector"])])
    return found | with_faiss(vectors.reshape(rows, model.dim), queries)


def peak() -> float:
    """Highest resident memory so far in GB, pages of mapped files included."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def searcher(folder: str, exact: bool) -> float:
    """Highest resident memory in GB of a process that opens an archive and searches it, and does nothing else."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_search, (folder, exact))


def _search(folder: str, exact: bool) -> float:
    archive = Archive.open(folder)
    near = Searcher(archive, exact)
    rows = archive.table.take_offsets(list(range(QUERIES))).select(["vector"]).to_arrow()["vector"].to_pylist()
    for query in np.array(rows, dtype=np.float32):
        near.search(query, TOP)
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage begins with the peak of the parent
    return round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9, 2)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        found = {name: searcher(sys.argv[1], exact) for name, exact in (("exact", True), ("IVF-PQ", False))}
    else:
        found = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    result = json.dumps(found, indent=2)
    print(result)
    if len(sys.argv) > 4:
        Path(sys.argv[4]).write_text(result + "\n", encoding="utf-8")
