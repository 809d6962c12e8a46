"""Settings of what shows an experiment: tables and figures."""

from __future__ import annotations

from pydantic import Field

from cmer.config.base import Distinct, Model, Name, Several
from cmer.config.protocols import Protocol


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
        description="captions of test images, for a figure of heat maps; [] for those that name the smallest things",
    )
