"""Evaluation: the reader of embeddings files, and the metrics of every label protocol. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cmer.config.experiment import PROTOCOLS
from cmer.data.frames import IMAGES, QUERIES, RANKS, read_frame
from cmer.errors import UserError
from cmer.io import sha256
from cmer.provenance import stored_record
from cmer.retrieval.bootstrap import ImageHits, mr_interval
from cmer.retrieval.controls import label_only
from cmer.retrieval.recall import BLOCK, Ranks, optimistic_hits, pessimistic_hits, ranks, recalls


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; `cmer embed` writes it")
    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); remove it and run `cmer embed` again") from None


def record(path: Path | str) -> dict[str, Any]:
    """The record of an embeddings file: spec, seed, code digests and versions.

    Raises:
        UserError: the file is missing or damaged, or `cmer embed` did not write it.
    """
    found = stored_record(path)
    if "embedding" not in found:
        raise UserError(f"{path} is not an embeddings file; give one that `cmer embed` wrote")
    return found


def protocols(path: Path | str) -> list[str]:
    """The label protocols in an embeddings file, in the usual order."""
    with _opened(path) as file:
        names = set(file.keys())
    return [p for p in PROTOCOLS if {f"texts/{p}", f"scores/{p}"} & names]


def similarity(path: Path | str, protocol: str) -> NDArray[np.float32]:
    """Similarity [n_images, n_captions] of all test images and captions under a label protocol.

    Dot products are accumulated in float64 and rounded to float32, so that equal embeddings give equal scores and the
    number of threads does not affect the result.

    Raises:
        UserError: the file is missing or damaged, lacks the protocol, or has scores that are not finite.
    """
    with _opened(path) as file:
        names = set(file.keys())
        if f"scores/{protocol}" in names:
            return _finite(np.asarray(file.get_tensor(f"scores/{protocol}"), np.float32), path, protocol)
        if f"texts/{protocol}" not in names:
            raise UserError(f"{path} has no embeddings for label protocol {protocol!r}; run `cmer embed` again")
        images, texts = file.get_tensor("images"), file.get_tensor(f"texts/{protocol}").astype(np.float64)
        index = file.get_tensor(f"index/{protocol}")
    if np.any(index < 0) or np.any(index >= len(texts)):
        raise UserError(f"{path} has captions without a text under label protocol {protocol!r}; run `cmer embed` again")
    scores = np.empty((len(images), len(index)), np.float32)
    step = max(1, BLOCK // len(texts))
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        scores[rows] = (images[rows].astype(np.float64) @ texts.T).astype(np.float32)[:, index]
    return _finite(scores, path, protocol)


def _finite(scores: NDArray[np.float32], path: Path | str, protocol: str) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise UserError(f"{path} has scores that are not finite under label protocol {protocol!r}; train the run again")
    return scores


def evaluate(embeddings: Path | str, folder: Path | str, queries: Path | str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score the test split under every label protocol of an embeddings file.

    Args:
        embeddings: file of unit embeddings or pair scores, with images and captions in the order of the tables below;
            protocol `rich` has queries of its own, and the image of each.
        folder: folder of the dataset's `images.csv`.
        queries: table of the test captions, with their image ids.

    Returns:
        the metrics (JSON-ready; recalls in percent), and the ranks of every query: protocol, direction, ids of query
        and image, and the counts of `Ranks`.

    Raises:
        UserError: a file is missing, or the embeddings belong to another test split.
    """
    images, captions = _test_split(folder, queries)
    owner = images.index.get_indexer(pd.Index(captions["image_id"]))
    metrics: dict[str, Any] = {
        "test": {"images": len(images), "captions": len(captions)},
        "controls": {"label_only": _rounded(label_only(images["label"].tolist(), owner).as_dict())},
        "record": record(embeddings),
        "protocols": {},
    }
    tables = []
    for protocol in protocols(embeddings):
        scores = similarity(embeddings, protocol)
        texts = _rich_queries(embeddings, images.index) if protocol == "rich" else captions
        owner = images.index.get_indexer(pd.Index(texts["image_id"]))
        if scores.shape != (len(images), len(texts)):
            raise UserError(
                f"{embeddings} has {scores.shape[0]} images and {scores.shape[1]} captions, but the test split has "
                f"{len(images)} and {len(texts)}; run `cmer embed` again"
            )
        i2t, t2i = ranks(scores, owner)
        metrics["protocols"][protocol] = _summary(i2t, t2i, owner) | _text_counts(embeddings, protocol, owner)
        tables.append(_table(protocol, "i2t", images.index, images.index, i2t))
        tables.append(_table(protocol, "t2i", texts["caption_id"], texts["image_id"], t2i))
    return metrics, pd.concat(tables, ignore_index=True)


def _test_split(folder: Path | str, queries: Path | str) -> tuple[pd.DataFrame, pd.DataFrame]:
    images, texts = read_frame(Path(folder) / "images.csv", IMAGES), read_frame(queries, QUERIES)
    images = images[images["split"] == "test"].set_index("image_id")
    if not len(images) or set(images.index) != set(texts["image_id"]):
        raise UserError(f"{queries} does not describe the test images of {folder}; run `cmer augment` again")
    return images, texts


def _rich_queries(embeddings: Path | str, images: pd.Index) -> pd.DataFrame:
    """Ids, consecutive from 0, and images of queries that are no captions."""
    with _opened(embeddings) as file:
        owners = file.get_tensor("owners/rich")
    if np.any(owners < 0) or np.any(owners >= len(images)):
        raise UserError(f"{embeddings} has queries of images outside the test split; run `cmer embed` again")
    return pd.DataFrame({"caption_id": np.arange(len(owners)), "image_id": images[owners]})


def _summary(i2t: Ranks, t2i: Ranks, owner: NDArray[np.int64]) -> dict[str, Any]:
    return _rounded(
        recalls(i2t, t2i).as_dict()
        | {
            "mr_optimistic": recalls(i2t, t2i, optimistic_hits).mr,
            "mr_pessimistic": recalls(i2t, t2i, pessimistic_hits).mr,
        }
    ) | {
        "mr_interval": [round(bound, 4) for bound in mr_interval(ImageHits.of(i2t, t2i, owner))],
        "tied_queries": {"i2t": int((i2t.tied_negatives > 0).sum()), "t2i": int((t2i.tied_negatives > 0).sum())},
    }


def _text_counts(embeddings: Path | str, protocol: str, owner: NDArray[np.int64]) -> dict[str, int]:
    """Numbers of distinct texts, and of captions whose text describes several test images and is thus ambiguous."""
    with _opened(embeddings) as file:
        text = pd.Series(file.get_tensor(f"index/{protocol}"))
    images_of_text = pd.Series(owner).groupby(text).transform("nunique")
    return {"unique_texts": int(text.nunique()), "shared_captions": int((images_of_text > 1).sum())}


def _table(protocol: str, direction: str, query: Any, image: Any, found: Ranks) -> pd.DataFrame:
    keys = {"protocol": protocol, "direction": direction, "query": query, "image": image}
    return pd.DataFrame(keys | found._asdict())


class RanksFile(NamedTuple):
    """A file of ranks, and the checksum that the metrics beside it hold."""

    path: Path
    sha256: str


@cache
def read_hits(file: RanksFile, protocol: str) -> ImageHits:
    """The hits of a run and seed under a label protocol, from the ranks that `evaluate` returns.

    Raises:
        UserError: the file is missing, damaged or from another evaluation than its metrics, or lacks the protocol.
    """
    path = file.path
    table = read_frame(path, RANKS)
    if sha256(path) != file.sha256:
        raise UserError(f"{path} is not what was written with the metrics beside it; run `cmer evaluate` again")
    table = table[table["protocol"] == protocol]
    if not len(table):
        raise UserError(f"{path} has no ranks under label protocol {protocol!r}; run `cmer evaluate` again")
    i2t, t2i = (table[table["direction"] == direction] for direction in ("i2t", "t2i"))
    owner = pd.Index(i2t["image"]).get_indexer(pd.Index(t2i["image"]))
    return ImageHits.of(_ranks(i2t), _ranks(t2i), owner, i2t["image"])


def _ranks(rows: pd.DataFrame) -> Ranks:
    return Ranks(*(rows[name].to_numpy(np.int64) for name in Ranks._fields))


def _rounded(values: dict[str, float]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in values.items()}
