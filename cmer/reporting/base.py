"""Interfaces of tables and figures, and how they are built from a spec and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import pandas as pd
from pydantic import Field, field_validator

from cmer.config.base import Model
from cmer.config.experiment import Protocol
from cmer.registry import FIGURES, TABLES
from cmer.reporting.measured import TableRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Source = Literal["metrics", "efficiency"]


@dataclass(frozen=True)
class Files:
    """The files that a table or figure reads, in any order.

    Attributes:
        metrics: one per run and seed, written by `cmer evaluate`.
        efficiency: one per backbone, written by `cmer profile`.
    """

    metrics: Sequence[Path] = ()
    efficiency: Sequence[Path] = ()


class TableSpec(Model):
    """Everything that a table depends on, besides its files."""

    kind: str
    runs: list[TableRun]
    protocols: list[Protocol]
    seeds: list[int]

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        TABLES.check(kind)
        return kind


class FigureSpec(Model):
    """Everything that a figure depends on, besides its files: runs on one dataset, and their seeds."""

    kind: str
    runs: Annotated[list[TableRun], Field(min_length=1)]
    seeds: list[int]

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        FIGURES.check(kind)
        return kind


class Table(ABC):
    """A kind of table.

    Class attributes:
        reads: the kinds of files that the table reads; the workflow makes them first.
        printed: numbers of the paper's tables whose printed values the table contains.
    """

    reads: ClassVar[tuple[Source, ...]]
    printed: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """The cells of the table; missing ones may be NaN.

        Raises:
            UserError: the files lack something that a row needs.
        """


class Figure(ABC):
    """A kind of figure.

    Class attributes:
        reads: the kinds of files that the figure reads; the workflow makes them first.
        printed: numbers of the paper's tables whose printed values the figure contains.
    """

    reads: ClassVar[tuple[Source, ...]]
    printed: ClassVar[tuple[int, ...]] = ()

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
        UserError: the files lack something that a run needs.
    """
    figure: Figure = FIGURES.get(spec.kind)()
    return figure.draw(spec, files)
