"""Evaluation: the metrics of every label protocol of an embeddings file. Imports no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmer.data.frames import IMAGES, QUERIES, RANKS, digest_of_test_split, read_frame
from cmer.errors import UserError
from cmer.io import sha256
from cmer.retrieval.bootstrap import ImageHits, mr_interval
from cmer.retrieval.controls import label_only
from cmer.retrieval.queries import described, select
from cmer.retrieval.recall import Ranks, optimistic_hits, pessimistic_hits, recalls
from cmer.retrieval.reranking import Directed, Fitted, Scores
from cmer.retrieval.scores import Indices, protocols, read_scored, record, rich_owners, text_index


class Evaluated(NamedTuple):
    """What an evaluation found.

    Attributes:
        metrics: JSON-ready; recalls in percent.
        ranks: the ranks of every query: protocol, direction, ids of query and image, and the counts of `Ranks`.
        queries: JSON-ready; queries of the first protocol that are answered best, nearly and worst.
    """

    metrics: dict[str, Any]
    ranks: pd.DataFrame
    queries: dict[str, Any]


def evaluate(
    embeddings: Path | str, folder: Path | str, queries: Path | str, fitted: Fitted | None = None
) -> Evaluated:
    """Score the test split under every label protocol of an embeddings file.

    Args:
        embeddings: file of unit embeddings or pair scores, with images and captions in the order of the tables below;
            protocol `rich` has queries of its own, and the image of each.
        folder: folder of the dataset's `images.csv`.
        queries: table of the test captions, with their image ids.
        fitted: reranker of the scores; None for the run's own.

    Raises:
        UserError: a file is missing, or the embeddings belong to another test split.
    """
    images, captions = read_test_split(embeddings, folder, queries)
    owner = images.index.get_indexer(pd.Index(captions["image_id"]))
    metrics: dict[str, Any] = {
        "test": {"images": len(images), "captions": len(captions)},
        "controls": {"label_only": _rounded(label_only(images["label"].tolist(), owner).as_dict())},
        "record": record(embeddings) | ({"reranking": fitted.facts()} if fitted else {}),
        "protocols": {},
    }
    tables: list[pd.DataFrame] = []
    shown: dict[str, Any] = {}
    for protocol in protocols(embeddings):
        texts = _rich_queries(embeddings, images.index) if protocol == "rich" else captions
        owner = images.index.get_indexer(pd.Index(texts["image_id"]))
        directed = _directed(embeddings, protocol, owner, len(images), fitted)
        i2t, t2i = directed.ranks(owner)
        shown = shown or _shown(directed.t2i, owner, t2i, captions, protocol, images)
        metrics["protocols"][protocol] = _summary(i2t, t2i, owner) | _text_counts(embeddings, protocol, owner)
        tables.append(_table(protocol, "i2t", images.index, images.index, i2t))
        tables.append(_table(protocol, "t2i", texts["caption_id"], texts["image_id"], t2i))
    return Evaluated(metrics, pd.concat(tables, ignore_index=True), shown)


def _directed(embeddings: Path | str, protocol: str, owner: Indices, n_images: int, fitted: Fitted | None) -> Directed:
    bank, partner = (fitted.bank, fitted.partner) if fitted else (None, None)
    scored = read_scored(embeddings, protocol, bank, partner)
    if scored.scores.shape != (n_images, len(owner)):
        raise UserError(
            f"{embeddings} has {scored.scores.shape[0]} images and {scored.scores.shape[1]} captions, but the test "
            f"split has {n_images} and {len(owner)}; run `cmer embed` again"
        )
    return fitted.rescored(scored) if fitted else Directed(scored.scores, scored.scores)


def _shown(
    scores: Scores, owner: Indices, t2i: Ranks, captions: pd.DataFrame, protocol: str, images: pd.DataFrame
) -> dict[str, Any]:
    groups = select(scores, owner, t2i)._asdict() if protocol in captions else {}
    chosen = {group: described(found, captions, protocol, images) for group, found in groups.items()}
    return {"protocol": protocol} | chosen


def read_test_split(
    embeddings: Path | str, folder: Path | str, queries: Path | str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of images.csv of the test split, by image id, and its captions; see `evaluate` for the arguments.

    Raises:
        UserError: a file is missing, or the embeddings belong to another test split.
    """
    images, texts = read_frame(Path(folder) / "images.csv", IMAGES), read_frame(queries, QUERIES)
    images = images[images["split"] == "test"].set_index("image_id")
    if not len(images) or set(images.index) != set(texts["image_id"]):
        raise UserError(f"{queries} does not describe the test images of {folder}; run `cmer augment` again")
    if record(embeddings)["embedding"].get("test") != digest_of_test_split(images.reset_index(), texts):
        raise UserError(f"{embeddings} is of other test images or queries than {queries}; run `cmer embed` again")
    if not protocols(embeddings):
        raise UserError(f"{embeddings} has no label protocol; run `cmer embed` again")
    return images, texts


def _rich_queries(embeddings: Path | str, images: pd.Index) -> pd.DataFrame:
    """Ids, consecutive from 0, and images of queries that are no captions."""
    owners = rich_owners(embeddings)
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
    text = pd.Series(text_index(embeddings, protocol))
    images_of_text = pd.Series(owner).groupby(text).transform("nunique")
    return {"unique_texts": int(text.nunique()), "shared_captions": int((images_of_text > 1).sum())}


def _table(protocol: str, direction: str, query: Any, image: Any, found: Ranks) -> pd.DataFrame:
    keys = {"protocol": protocol, "direction": direction, "query": query, "image": image}
    return pd.DataFrame(keys | found._asdict())


class RanksFile(NamedTuple):
    """A file of ranks, and the checksum that the metrics beside it hold."""

    path: Path
    sha256: str


class Ranked(NamedTuple):
    """The ranks of a run and seed under a label protocol.

    Attributes:
        i2t: ranks of the images' captions.
        t2i: ranks of the captions' images.
        owner: [n_captions] row of the image of each caption.
        ids: [n_images] ids of the images.
    """

    i2t: Ranks
    t2i: Ranks
    owner: Indices
    ids: NDArray[Any]


@cache
def read_hits(file: RanksFile, protocol: str) -> ImageHits:
    """The hits of a run and seed under a label protocol; see `read_ranks`."""
    found = read_ranks(file, protocol)
    return ImageHits.of(found.i2t, found.t2i, found.owner, found.ids)


def read_ranks(file: RanksFile, protocol: str) -> Ranked:
    """The ranks of a run and seed under a label protocol, as `evaluate` returns them.

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
    return Ranked(_ranks(i2t), _ranks(t2i), owner, i2t["image"].to_numpy())


def _ranks(rows: pd.DataFrame) -> Ranks:
    return Ranks(*(rows[name].to_numpy(np.int64) for name in Ranks._fields))


def _rounded(values: dict[str, float]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in values.items()}
