"""Settings of what shows an experiment: tables and figures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cmer.config.base import Distinct, Model, Name, Several
from cmer.config.protocols import Protocol

Group = Literal["best", "near", "worst"]
"""Queries by the rank of their image: 1, 2 to 5, above 5."""
OF_KINDS = frozenset({"group", "protocol", "queries"})
"""Settings of figures that only some kinds read."""


class Table(Model):
    """A table: `{results}/{name}.csv`."""

    kind: str = Field(default="", description="module of cmer/reporting/tables/; default: the table's name")
    runs: Several[str] = Field(description="names of runs, or patterns such as lite.*, in the order of the rows")
    datasets: Several[Name] | None = Field(
        default=None, description="datasets of the measured rows; null: all datasets of the runs"
    )
    protocols: Several[Protocol] = Field(
        default=["none", "oracle"],
        description="label protocols, one row each; `rich`, whose queries are no captions, for runs with `query: rich`",
    )


class Figure(Model):
    """A figure: `{results}/figures/{name}.png`."""

    kind: str = Field(default="", description="module of cmer/reporting/figures/; default: the figure's name")
    runs: Several[str] = Field(description="names of runs, or patterns such as lite.*")
    dataset: Name | None = Field(
        default=None, description="dataset of the figure; null: the dataset of the runs, if they have only one"
    )
    queries: Distinct[str] = Field(
        default=[],
        description="captions of test images, for a gallery or a figure of heat maps; [] for the gallery's `group`, or "
        "heat maps of captions that name the smallest things",
    )
    group: Group | None = Field(
        default=None,
        description="queries of a gallery: the best (rank 1), near misses (rank 2 to 5) or the worst (rank above 5)",
    )
    protocol: Protocol = Field(
        default="none", description="label protocol of a gallery's queries: none, oracle or shuffled"
    )
