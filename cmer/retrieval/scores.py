"""The reader of embeddings files and banks: scores of a split under a label protocol. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cmer.config.protocols import PROTOCOLS
from cmer.errors import UserError
from cmer.provenance import stored_record
from cmer.retrieval.recall import BLOCK

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


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
    if not isinstance(found.get("embedding"), dict) or not isinstance(found.get("spec"), dict):
        raise UserError(f"{path} is not an embeddings file; give one that `cmer embed` wrote")
    return found


def protocols(path: Path | str) -> list[str]:
    """The label protocols in an embeddings file, in the usual order."""
    with _opened(path) as file:
        names = set(file.keys())
    return [p for p in PROTOCOLS if {f"texts/{p}", f"scores/{p}"} & names]


def text_index(path: Path | str, protocol: str) -> Indices:
    """Number [n_captions] of the text of each caption under a label protocol; equal texts have equal numbers."""
    with _opened(path) as file:
        return _tensor(file, f"index/{protocol}", path, "I64", 1)


def similarity(path: Path | str, protocol: str) -> Floats:
    """Similarity [n_images, n_captions] of all images and captions of a file under a label protocol.

    Raises:
        UserError: the file is missing or damaged, lacks the protocol, or has scores that are not finite.
    """
    with _opened(path) as file:
        names = set(file.keys())
        if f"scores/{protocol}" in names:
            return _finite(_tensor(file, f"scores/{protocol}", path, "F32", 2), path, protocol)
        images, texts = _embeddings(file, path, protocol)
        index = _tensor(file, f"index/{protocol}", path, "I64", 1)
    if np.any(index < 0) or np.any(index >= len(texts)):
        raise UserError(f"{path} has captions without a text under label protocol {protocol!r}; run `cmer embed` again")
    scores = np.empty((len(images), len(index)), np.float32)
    for rows, block in products(images, texts):
        scores[rows] = block[:, index]
    return _finite(scores, path, protocol)


def texts_of(path: Path | str, protocol: str) -> Floats:
    """Unit embeddings [n_captions, e] of the captions under a label protocol.

    Raises:
        UserError: the file is missing or damaged, or has no embeddings, as those of a method that scores pairs.
    """
    with _opened(path) as file:
        texts = _embeddings(file, path, protocol)[1]
    return texts[text_index(path, protocol)]


def _embeddings(file: Any, path: Path | str, protocol: str) -> tuple[Floats, Floats]:
    if f"texts/{protocol}" not in set(file.keys()):
        raise UserError(f"{path} has no embeddings for label protocol {protocol!r}; run `cmer embed` again")
    images, texts = _unit(file, "images", path), _unit(file, f"texts/{protocol}", path)
    if images.shape[1] != texts.shape[1]:
        raise UserError(f"{path} has images and texts of different widths; run `cmer embed` again")
    return images, texts


def _unit(file: Any, name: str, path: Path | str) -> Floats:
    """Unit embeddings [n, e]; averages of views are normalised in float32."""
    rows = _tensor(file, name, path, "F32", 2)
    norms = np.linalg.norm(rows, axis=1)
    if not np.isfinite(norms).all():
        raise UserError(f"{path} has embeddings that are not finite; train the run again")
    if np.any(np.abs(norms - 1) > 1e-3):
        raise UserError(f"{path} has embeddings that are not unit vectors; run `cmer embed` again")
    return rows


def _tensor(file: Any, name: str, path: Path | str, dtype: str, dimensions: int) -> NDArray[Any]:
    about = file.get_slice(name) if name in set(file.keys()) else None
    if about is None or about.get_dtype() != dtype or len(about.get_shape()) != dimensions:
        raise UserError(f"{path} has no tensor {name} of {dtype} with {dimensions} dimensions; run `cmer embed` again")
    found: NDArray[Any] = file.get_tensor(name)
    return found


def products(rows: Floats, columns: Floats) -> Iterator[tuple[slice, Floats]]:
    """Dot products [r, c] of blocks of rows with all columns, each with the rows that it covers.

    They are accumulated in float64 and rounded to float32, so that equal embeddings give equal scores and the number of
    threads does not affect the result.
    """
    others = columns.astype(np.float64).T
    step = max(1, BLOCK // len(columns))
    for start in range(0, len(rows), step):
        covered = slice(start, start + step)
        yield covered, (rows[covered].astype(np.float64) @ others).astype(np.float32)


def _finite(scores: Floats, path: Path | str, protocol: str) -> Floats:
    if not np.isfinite(scores).all():
        raise UserError(f"{path} has scores that are not finite under label protocol {protocol!r}; train the run again")
    return scores


@dataclass(frozen=True)
class Bank:
    """Unit embeddings of train images [a, e] and train captions [b, e], for a method that embeds."""

    images: Floats
    captions: Floats


@dataclass(frozen=True)
class Scored:
    """Scores of a split by a run, and everything that a reranker may read besides.

    Attributes:
        scores: [n_images, n_captions] similarity.
        images: [n_images, e] unit embeddings; None for a method that scores pairs.
        captions: [n_captions, e] unit embeddings; None for a method that scores pairs.
        bank: embeddings of the train images and captions; None for a method that scores pairs.
        partner: [n_images, n_captions] similarity by the partner run; None for a reranker without one.
    """

    scores: Floats
    images: Floats | None = None
    captions: Floats | None = None
    bank: Bank | None = None
    partner: Floats | None = None


def read_scored(
    path: Path | str, protocol: str, bank: Path | str | None = None, partner: Path | str | None = None
) -> Scored:
    """The scores of an embeddings file under a label protocol, with what rerankers read.

    Args:
        path: embeddings of the split, which may be the bank itself.
        protocol: label protocol.
        bank: file of `cmer bank` of the same training; None: there is no reranker.
        partner: embeddings of the same split by another run.

    Raises:
        UserError: a file is missing or damaged, or the partner's split is another one.
    """
    scores = similarity(path, protocol)
    other = None if partner is None else similarity(partner, protocol)
    if other is not None and other.shape != scores.shape:
        raise UserError(f"{partner} has scores of another split than {path}; run `cmer embed` again")
    if bank is None:
        return Scored(scores)
    with _opened(bank) as file:
        if "bank/images" not in set(file.keys()):
            return Scored(scores, partner=other)
        known = Bank(_unit(file, "bank/images", bank), _unit(file, "bank/captions", bank))
    with _opened(path) as file:
        images, texts = _embeddings(file, path, protocol)
    return Scored(scores, images, texts[text_index(path, protocol)], known, other)


def rich_owners(path: Path | str) -> Indices:
    """Row [n_queries] of the image of each query under protocol `rich`, whose queries are no captions."""
    with _opened(path) as file:
        return _tensor(file, "owners/rich", path, "I64", 1)


def require_bank(path: Path | str, embeddings: Path | str) -> None:
    """Check that a file is the bank of the training whose embeddings are given.

    Raises:
        UserError: it is missing or damaged, no bank, or the bank of another training.
    """
    made, trained = stored_record(path), record(embeddings)
    if "bank" not in made:
        raise UserError(f"{path} is not a bank; give a file that `cmer bank` wrote")
    if _training(made) != _training(trained):
        raise UserError(f"{path} is of another training than {embeddings}; run `cmer bank` on its checkpoint")


def _training(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that the checkpoint has as well."""
    return {key: value for key, value in found.items() if key not in ("embedding", "bank")}


def owners(bank: Path | str) -> Indices:
    """Row [n_captions] of the image of each validation caption in a file of `cmer bank`."""
    with _opened(bank) as file:
        return _tensor(file, "owner", bank, "I64", 1)
