"""Tables of results as cells of a page: values with their spread, differences with their support, filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from cmer.reporting.metrics import RECALLS

NAMES = ("method", "ablation", "run")
"""Columns that name a row, of which a table's first one heads it."""
FILTERS = ("dataset", "backbone", "label_protocol")
FRONT = ("setting", "batch", "mr", "delta_best", "best_run", "paper_mr", "delta_mr")
"""Columns that come first; dataset and backbone come last."""
HIDDEN = frozenset(
    {"source", "text_encoder", "options", "run", "seeds", "mr_std", "mr_ci_low", "mr_ci_high", "supported"}
    | {"label_protocol"}
    | {"delta_best_ci_low", "delta_best_ci_high", "ci_low", "ci_high", "pairs_per_s_low", "pairs_per_s_high"}
    | {"status", "note"}
)
"""Columns that are part of another column's cells, or of a row's heading, which is always in sight."""
INTERVALS = {
    "delta_best": ("delta_best_ci_low", "delta_best_ci_high"),
    "difference": ("ci_low", "ci_high"),
    "pairs_per_s": ("pairs_per_s_low", "pairs_per_s_high"),
}
"""Columns of the lower and upper bound of a column's values, other than mR's."""
HEADINGS = {
    **{name: name.upper().replace("_R", " R@").replace("2", "→") for name in RECALLS},
    "params_m": "trained, M",
    "mr": "mR",
    "mr_compared": "mR compared",
    "paper_mr": "mR in the paper",
    "delta_mr": "ours minus paper",
    "best_run": "best run",
    "delta_best": "minus best",
    "train_images": "images",
    "pairs_seen": "pairs seen",
    "saved_mb_per_pair": "kept, MB per pair",
    "saved_mb_fixed": "kept, MB fixed",
    "memory_mb": "peak, MB",
    "reserved_mb": "reserved, MB",
    "pairs_per_s": "pairs/s",
    "gmacs_forward_per_pair": "forward, GMACs per pair",
    "gmacs_backward_per_pair": "backward, GMACs per pair",
    "iqt": "image→text, sum",
    "tqi": "text→image, sum",
}
"""Headings of columns whose names are no words."""


class Cell(NamedTuple):
    """A cell: its text, a second line in small type, the key it sorts by, and how its value compares."""

    text: str
    detail: str = ""
    key: str = ""
    tone: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it sorts as a number."""
        return self.key.lstrip("+-").replace(".", "", 1).isdigit()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        link: anchor of the run's page; empty for printed rows and controls.
        kind: measured, control or paper.
        filters: its value of each filter; its label protocol is shown with its name.
    """

    name: Cell
    cells: list[Cell]
    link: str
    kind: str
    filters: dict[str, str]


@dataclass(frozen=True)
class View:
    """A table as a page shows it.

    Attributes:
        filters: the values to choose from, of each filter with several.
    """

    name: str
    title: str
    headings: list[str]
    rows: list[Row]
    filters: dict[str, list[str]] = field(default_factory=dict)


def view(name: str, title: str, table: pd.DataFrame, links: Mapping[tuple[str, str], str]) -> View:
    """Arrange a results table.

    Args:
        name: name of its file.
        title: what it shows.
        table: cells, all of them text.
        links: anchor of the page of each run, by name and dataset title; tables of costs name no dataset.
    """
    named = next((column for column in NAMES if column in table), table.columns[0])
    columns = _columns(table, named)
    remarks = any(_remark(row) for row in _records(table))
    rows = [_row(row, named, columns, remarks, links) for row in _records(table)]
    filters = {key: list(dict.fromkeys(row.filters[key] for row in rows if row.filters.get(key))) for key in FILTERS}
    headings = [named, *columns, *["remarks"] * remarks]
    return View(
        name=name,
        title=title,
        headings=[HEADINGS.get(column, column.replace("_", " ")) for column in headings],
        rows=sorted(rows, key=lambda row: row.kind == "paper"),
        filters={key: values for key, values in filters.items() if len(values) > 1},
    )


def _columns(table: pd.DataFrame, named: str) -> list[str]:
    """The columns that say something, the most important ones first."""
    shown = [str(column) for column in table if column not in HIDDEN | {named} and (table[column] != "").any()]
    front, back = ([name for name in names if name in shown] for names in (FRONT, ("dataset", "backbone")))
    return [*front, *(name for name in shown if name not in (*front, *back)), *back]


def _records(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    return ({str(key): str(value) for key, value in row.items()} for row in table.to_dict("records"))


def _row(
    row: Mapping[str, str], named: str, columns: list[str], remarks: bool, links: Mapping[tuple[str, str], str]
) -> Row:
    run = row.get("run", "")
    name = Cell(row[named] or run, "" if run == row[named] else run, row[named].lower())
    return Row(
        name=name,
        cells=[_cell(column, row) for column in columns] + [Cell(_remark(row), tone="remarks")] * remarks,
        link=links.get((run, row.get("dataset", "")), ""),
        kind=row.get("source") or ("measured" if run else "paper"),
        filters={key: row[key] for key in FILTERS if key in row},
    )


def _remark(row: Mapping[str, str]) -> str:
    status = row.get("status", "")
    differs = (
        f"differs from the printed row in {status.removeprefix('other ')}" if status.startswith("other ") else status
    )
    return "; ".join(filter(None, (row.get("options", ""), differs, row.get("note", ""))))


def _cell(column: str, row: Mapping[str, str]) -> Cell:
    value = row[column]
    if column == "mr" and row.get("mr_ci_low"):
        std = row.get("mr_std", "")
        spread = f" ± {std}" if std not in ("", "one seed") else ""
        return Cell(f"{value}{spread}", f"{row['mr_ci_low']} to {row['mr_ci_high']}", value)
    if column == "delta_mr" and value:
        inside = float(row["mr_ci_low"]) <= float(row["mr"]) - float(value) <= float(row["mr_ci_high"])
        return Cell(value, "within the interval" * inside, value, "noise" if inside else _sign(value))
    low, high = (row.get(name, "") for name in INTERVALS.get(column, ("", "")))
    supported = row.get("supported", "")
    tone = "" if not supported or not low else "noise" if supported.startswith("no") else _sign(value)
    return Cell(value, f"{low} to {high}" * bool(low), value, tone)


def _sign(value: str) -> str:
    return "worse" if float(value) < 0 else "better"
