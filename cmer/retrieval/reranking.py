"""Reranking of the scores of a run, with settings that are chosen on validation. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmer.config.base import Model, Name
from cmer.config.reranking import AnyReranker, RerankerOptions
from cmer.errors import UserError
from cmer.retrieval.recall import Ranks, ranks, recalls
from cmer.retrieval.scores import Bank, Floats, Indices, Scored, owners, products, read_scored, record, require_bank

Setting = Mapping[str, float]
Scores = NDArray[np.floating[Any]]


class Directed(NamedTuple):
    """Scores [n_images, n_captions] for each direction; both are one array unless a query bank makes them differ."""

    i2t: Scores
    t2i: Scores

    def ranks(self, owner: Indices) -> tuple[Ranks, Ranks]:
        """Image-to-text and text-to-image ranks; see `cmer.retrieval.recall.ranks`."""
        if self.i2t is self.t2i:
            return ranks(self.i2t, owner)
        return ranks(self.i2t, owner)[0], ranks(self.t2i, owner)[1]


class Reranker(RerankerOptions):
    """A reranker with a grid of settings."""

    @abstractmethod
    def grid(self, validation: Scored) -> list[Setting]:
        """The settings to choose from; of equally good ones, the first is chosen."""

    @abstractmethod
    def rescorer(self, scored: Scored) -> Callable[[Setting], Directed]:
        """A function from a setting to the new scores of a split.

        Raises:
            UserError: the run's files lack what the reranker reads.
        """

    def embedded(self, scored: Scored) -> tuple[Floats, Floats, Bank]:
        """Embeddings of the images and of the captions, and the bank.

        Raises:
            UserError: there are none, because the method scores pairs.
        """
        if scored.bank is None or scored.images is None or scored.captions is None:
            raise UserError(f"a method that scores pairs has no bank of training queries: {self.without_bank}")
        return scored.images, scored.captions, scored.bank


class RerankSpec(Model):
    """The settings that reranking reads.

    Attributes:
        name: name of the row, {run}.{reranker}.
    """

    name: Name
    reranker: AnyReranker


@dataclass(frozen=True)
class Fitted:
    """A reranker with the setting that was chosen on validation.

    Attributes:
        spec: name and settings.
        chosen: the setting with the best validation mR.
        grid: every setting with its validation mR in percent.
        bank: file of `cmer bank` of the reranked run.
        partner: embeddings of the test split by the partner run.
    """

    spec: RerankSpec
    chosen: Setting
    grid: pd.DataFrame
    bank: Path
    partner: Path | None

    def rescored(self, scored: Scored) -> Directed:
        """The new scores of a test split."""
        return _reranker(self.spec).rescorer(scored)(self.chosen)

    def facts(self) -> dict[str, Any]:
        """What a record says of the reranking."""
        return self.spec.model_dump() | {"chosen": dict(self.chosen), "grid": self.grid.to_dict("records")}


def fit(
    spec: RerankSpec, embeddings: Path, bank: Path, partner: Path | None = None, partner_bank: Path | None = None
) -> Fitted:
    """Choose the setting of a reranker by mR on the validation images and their plain captions.

    Args:
        spec: name and settings.
        embeddings: embeddings of the test split by the reranked run.
        bank: file of `cmer bank` of the reranked run.
        partner: embeddings of the test split by the partner run, for a reranker that has one.
        partner_bank: file of `cmer bank` of the partner run.

    Raises:
        UserError: a file is missing or damaged, is no bank, is missing for the partner, or is of another training or
            test split than the others.
    """
    wanted = spec.reranker.partner_run
    if (wanted is None) != (partner is None) or (wanted is None) != (partner_bank is None):
        raise UserError(f"reranker {spec.reranker.kind} reads {wanted or 'no'} partner run; give its two files or none")
    require_bank(bank, embeddings)
    if partner is not None and partner_bank is not None:
        _require_partner(str(wanted), partner, embeddings)
        require_bank(partner_bank, partner)
    validation, owner = read_scored(bank, "none", bank, partner_bank), owners(bank)
    settings, rescored = _reranker(spec).grid(validation), _reranker(spec).rescorer(validation)
    found = [recalls(*rescored(setting).ranks(owner)).mr for setting in settings]
    grid = pd.DataFrame([dict(setting) | {"val_mr": round(mr, 4)} for setting, mr in zip(settings, found, strict=True)])
    return Fitted(spec, settings[found.index(max(found))], grid, bank, partner)


def _require_partner(wanted: str, partner: Path, embeddings: Path) -> None:
    own, other = record(embeddings), record(partner)
    if other["spec"]["run"] != wanted:
        raise UserError(f"{partner} is of run {other['spec']['run']}, not {wanted}; give the partner's file")
    for what in ("dataset", "seed"):
        if own["spec"][what] != other["spec"][what]:
            raise UserError(
                f"{partner} is of {what} {other['spec'][what]}, {embeddings} of {own['spec'][what]}; give files of one"
            )
    if own["embedding"].get("test") != other["embedding"].get("test"):
        raise UserError(f"{partner} has another test split than {embeddings}; run `cmer embed` again")


def _reranker(spec: RerankSpec) -> Reranker:
    assert isinstance(spec.reranker, Reranker)
    return spec.reranker


def log_mass(rows: Floats, bank: Floats, temperature: float) -> NDArray[np.float64]:
    """Log of the sum of exp(similarity / temperature) over the bank [b, e], for each of the rows [n, e].

    All are unit vectors and temperatures are at least 0.01, so no exponential overflows.
    """
    blocks = [np.log(np.exp(block / np.float64(temperature)).sum(axis=1)) for _, block in products(rows, bank)]
    return np.concatenate(blocks)
