"""What a report shows. Imports neither Jinja nor matplotlib, because planning reads it."""

from __future__ import annotations

from cmer.config.base import Distinct, Model
from cmer.config.datasets import Dataset
from cmer.config.training import Training
from cmer.reporting.metrics import TableRun


class Shown(Model):
    """A table or figure of the experiment: the name of its file, and its kind."""

    name: str
    kind: str


class ReportRun(TableRun):
    """A run on a dataset, with its settings.

    Attributes:
        training: its training settings; a reranked run has those of the run itself.
    """

    training: Training

    @property
    def anchor(self) -> str:
        """Anchor of its page."""
        return f"run-{self.dataset}-{self.name}"

    @property
    def place(self) -> str:
        """Where its files lie within each phase of the results."""
        return f"{self.dataset}/{self.name}"


class ReportSpec(Model):
    """Everything that a report depends on, besides its files.

    Attributes:
        folder: folder of the experiment's results.
        datasets: settings of the datasets, by name; their images are shown.
    """

    folder: str
    tables: list[Shown]
    figures: list[Shown]
    runs: list[ReportRun]
    seeds: Distinct[int]
    datasets: dict[str, Dataset]
