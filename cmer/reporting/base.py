"""Interfaces of tables and figures, and how they are built from a spec and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import pandas as pd
from pydantic import Field, field_validator, model_validator

from cmer.config.base import Distinct, Model, Several, require_unique
from cmer.config.datasets import Dataset
from cmer.config.protocols import Protocol
from cmer.config.runs import Run
from cmer.config.shown import OF_KINDS, Group
from cmer.config.shown import Figure as Shown
from cmer.errors import UserError
from cmer.registry import FIGURES, TABLES
from cmer.reporting.metrics import TableRun
from cmer.retrieval.scores import record

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Source = Literal["metrics", "efficiency", "embeddings", "heat_maps", "pictures"]


@dataclass(frozen=True)
class Files:
    """The files that a table or figure reads, in any order.

    Attributes:
        metrics: one per run and seed, written by `cmer evaluate`.
        efficiency: one per backbone, written by `cmer profile`.
        embeddings: one per run, of the first seed, written by `cmer embed`.
        images: the dataset's images.csv, for what reads embeddings; its images.tar beside it, for what shows pictures.
        queries: the test captions, written by `cmer augment`, for what reads embeddings.
        heat_maps: one per run, of the first seed, written by `cmer heat-maps`.
    """

    metrics: Sequence[Path] = ()
    efficiency: Sequence[Path] = ()
    embeddings: Sequence[Path] = ()
    images: Path | None = None
    queries: Path | None = None
    heat_maps: Sequence[Path] = ()

    def embeddings_of(self, runs: Sequence[TableRun]) -> list[Path]:
        """The embeddings of each of these runs.

        Raises:
            UserError: a run has none.
        """
        by_run = {record(file)["spec"]["run"]: file for file in self.embeddings}
        if missing := [run.name for run in runs if run.name not in by_run]:
            raise UserError(f"the figure needs embeddings of {', '.join(missing)}; run `cmer embed` for them")
        return [by_run[run.name] for run in runs]


class TableSpec(Model):
    """Everything that a table depends on, besides its files."""

    kind: str
    runs: list[TableRun]
    protocols: Distinct[Protocol]
    seeds: Distinct[int]

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        TABLES.check(kind)
        return kind

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        _require_different(self.runs)
        if "metrics" in TABLES.get(self.kind).reads and not (self.protocols and self.seeds):
            raise ValueError(f"{self.kind} needs at least one label protocol and one seed")
        return self


class FigureSpec(Model):
    """Everything that a figure depends on, besides its files: runs on one dataset, their seeds, settings of its kind.

    Attributes:
        group, protocol, queries: see `cmer.config.shown.Figure`; given to the kinds that read them.
        pictures: settings of the dataset, for a kind that shows pictures.
    """

    kind: str
    runs: Annotated[list[TableRun], Field(min_length=1)]
    seeds: Several[int]
    group: Group | None = None
    protocol: Protocol = "none"
    queries: Distinct[str] = Field(default=[])
    pictures: Dataset | None = None

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        FIGURES.check(kind)
        return kind

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _require_different(self.runs)
        if "pictures" in FIGURES.get(self.kind).reads and self.pictures is None:
            raise ValueError(f"{self.kind} needs `pictures`, the settings of the dataset")
        return self


def _require_different(runs: Sequence[TableRun]) -> None:
    require_unique("runs", [f"{run.name} on {run.dataset}" for run in runs])


class Reported(ABC):
    """What tables and figures have in common.

    Class attributes:
        reads: the kinds of files that it reads; the workflow makes them first.
        printed: numbers of the paper's tables whose printed values it contains.
    """

    reads: ClassVar[tuple[Source, ...]]
    printed: ClassVar[tuple[int, ...]] = ()


class Table(Reported):
    """A kind of table."""

    @abstractmethod
    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """The cells of the table; missing ones may be NaN.

        Raises:
            UserError: the files lack something that a row needs.
        """


class Figure(Reported):
    """A kind of figure.

    Attributes:
        settings: which of the settings `OF_KINDS` it reads.
    """

    settings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def require(cls, entry: Shown, runs: Sequence[Run]) -> None:
        """Raise `ValueError` unless the settings of a figure in a config fit its kind; `runs` are those it shows."""
        if unread := sorted((entry.model_fields_set & OF_KINDS).difference(cls.settings)):
            raise ValueError(f"figures of kind {entry.kind} do not read {', '.join(unread)}; remove it")

    @abstractmethod
    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """The drawing, and the values that it shows as a table of formatted cells.

        Raises:
            UserError: the files lack something that a run needs.
        """


def build_table(spec: TableSpec, files: Files) -> pd.DataFrame:
    """Build a table: all cells are strings, recalls are in percent with two decimals.

    The same input gives the same table, to the byte.

    Raises:
        UserError: the files lack something that a row needs.
    """
    table: Table = TABLES.get(spec.kind)()
    return table.build(spec, files).astype(object).fillna("").astype(str)


def draw_figure(spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
    """Draw a figure, and return the values that it shows as a table.

    Raises:
        UserError: a file is missing, or the files lack something that a run needs.
    """
    figure: Figure = FIGURES.get(spec.kind)()
    if "embeddings" in figure.reads and (files.images is None or files.queries is None):
        raise UserError(f"{spec.kind} reads embeddings; give --images and --queries with them")
    return figure.draw(spec, files)
