"""The figure of accuracy and the cost of training: memory and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.efficiency import MB, Cost, costs_of, read_costs, significant
from cmer.reporting.measured import BUDGET, Measured, summarise
from cmer.reporting.metrics import read_metrics
from cmer.reporting.naming import printed_name
from cmer.reporting.paper import printed_methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SETTING = "today"


@dataclass(frozen=True)
class Point:
    """Accuracy of a run and the cost of its training.

    Attributes:
        label: name of the method as in the tables, followed by the run's name where it is ambiguous on the backbone.
        accuracy: recall under plain queries.
        cost: cost of a training step under setting `today`, at the larger batch size.
    """

    label: str
    accuracy: Measured
    cost: Cost

    @property
    def highlighted(self) -> bool:
        """Whether this is CMER."""
        return self.accuracy.run.method == "cmer"

    @property
    def megabytes(self) -> float | None:
        """Megabytes kept for the backward pass per pair; None where memory ran out."""
        kept = self.cost.saved.bytes_per_pair
        return None if kept is None else kept / MB

    @property
    def seconds(self) -> float | None:
        """Training time per 1,000 pairs; None where the step was not timed."""
        speed = self.cost.step.pairs_per_second
        return None if speed is None else 1000 / speed


@FIGURES.register("accuracy_cost")
class AccuracyCost(Figure):
    """A row per run: accuracy with its interval, memory and time."""

    reads = ("metrics", "efficiency")
    printed = (1,)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.accuracy_cost import draw  # planning has no need of matplotlib

        points = read_points(spec, files)
        return draw(points), as_table(points)


def read_points(spec: FigureSpec, files: Files) -> list[Point]:
    """The points, in the order of the spec's runs.

    Raises:
        UserError: a run's metrics or costs are missing.
    """
    measured, costs = read_metrics(files.metrics), read_costs(files.efficiency)
    names = printed_methods()
    called = [(printed_name(run.method, run.options, names), run.backbone_printed) for run in spec.runs]
    times = Counter(called)
    points = []
    for run, (label, backbone) in zip(spec.runs, called, strict=True):
        found = [cost for cost in costs_of(costs, run) if cost.step.setting == SETTING]
        if not found:
            raise UserError(f"{run.name} was not profiled under setting {SETTING!r}; add it to profile.settings")
        label += f" ({run.name})" if times[label, backbone] > 1 else ""
        cost = max(found, key=lambda cost: cost.step.batch)
        points.append(Point(label, summarise(measured, run, "none", spec.seeds), cost))
    return points


def as_table(points: Sequence[Point]) -> pd.DataFrame:
    """The points as a table of formatted cells; a megabyte is 10^6 bytes."""
    kept = ("run", "options", "dataset", "backbone", "label_protocol", "params_m", "mr", "mr_ci_low", "mr_ci_high")
    rows = []
    for point in points:
        cells, cost = point.accuracy.cells(), point.cost
        rows.append(
            {"method": point.label}
            | {name: cells[name] for name in kept}
            | {
                "saved_mb_per_pair": significant(point.megabytes),
                "seconds_per_1000_pairs": significant(point.seconds),
                "setting": cost.step.setting,
                "engine": cost.step.engine,
                "batch": str(cost.step.batch),
                "precision": cost.step.precision,
                "device": cost.device,
                "threads": str(cost.threads),
            }
            | {name: cells[name] for name in BUDGET}
        )
    return pd.DataFrame(rows)
