"""What a table and a figure are, and how one is made from its spec and files."""

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
    """What tables and figures read, in any order.

    Attributes:
        metrics: of every run and seed (`cmer evaluate`).
        efficiency: profiles of the runs' backbones (`cmer profile`).
    """

    metrics: Sequence[Path] = ()
    efficiency: Sequence[Path] = ()


class TableSpec(Model):
    """Exactly what a table is made of, besides its files."""

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
    """Exactly what a figure is made of, besides its files: runs on one dataset, and their seeds."""

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
        reads: which files it is made of; the workflow makes these first.
        printed: numbers of the paper's tables whose printed values it holds.
    """

    reads: ClassVar[tuple[Source, ...]]
    printed: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """The table's cells, missing ones NaN.

        Raises:
            UserError: what a row needs is not in the files.
        """


class Figure(ABC):
    """A kind of figure; attributes as a table's."""

    reads: ClassVar[tuple[Source, ...]]
    printed: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """The figure, and what it shows as a table of ready cells.

        Raises:
            UserError: what a run needs is not in the files.
        """


def build_table(spec: TableSpec, files: Files) -> pd.DataFrame:
    """The table of a spec: all cells are strings, recalls in percent with two decimals.

    The same input gives the same table, to the byte.

    Raises:
        UserError: what a row needs is not in the files.
    """
    table: Table = TABLES.get(spec.kind)()
    return table.build(spec, files).astype(object).fillna("").astype(str)


def draw_figure(spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
    """The figure of a spec, and what it shows as a table.

    Raises:
        UserError: what a run needs is not in the files.
    """
    figure: Figure = FIGURES.get(spec.kind)()
    return figure.draw(spec, files)
