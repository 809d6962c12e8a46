"""Tables of CMER's ablations: each printed row beside the measured rows with the same options."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import pandas as pd

from cmer.methods.cmer.options import CmerOptions
from cmer.reporting.base import Files, Table, TableSpec
from cmer.reporting.comparison import TO_BEST, to_best
from cmer.reporting.measured import BUDGET, Measured, number, signed, summarise
from cmer.reporting.metrics import RECALLS, TableRun, read_metrics
from cmer.reporting.naming import differences
from cmer.reporting.paper import ABLATION_BACKBONE, ABLATION_DATASET, printed

MEASURED = [
    *(
        "run",
        "options",
        "dataset",
        "backbone",
        "label_protocol",
        "iqt",
        "tqi",
        "mr",
        "mr_std",
        "mr_ci_low",
        "mr_ci_high",
    ),
    *(*TO_BEST, "seeds", "params_m", *BUDGET),
]


class Ablation(Table):
    """Every printed row beside the measured rows with the same options, then the runs that match no printed row.

    `delta_best` compares with the best run of the table on the same dataset and label protocol, and `supported` says
    whether its interval excludes zero. `delta_mr` is filled only where dataset, backbone, all options and the label
    protocol are those of the printed row; the protocol is `none`, and `oracle` for d2.

    Class attributes:
        number: number of the printed table.
        keys: columns of the printed table that say what is varied.
        identity: how many leading keys decide which printed row a run belongs to.
        variants: variants of CMER that the table covers.
        varied: options that the table varies.
        mr: column of the printed mR, by dataset title.
    """

    reads = ("metrics",)
    number: ClassVar[int]
    keys: ClassVar[tuple[str, ...]]
    identity: ClassVar[int]
    variants: ClassVar[tuple[str, ...]]
    varied: ClassVar[frozenset[str]] = frozenset()
    mr: ClassVar[dict[str, str]] = {ABLATION_DATASET: "mr"}

    @abstractmethod
    def values(self, options: CmerOptions) -> tuple[str, ...]:
        """The cells of `keys` for a run with these options."""

    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """See `Table`."""
        metrics, paper = read_metrics(files.metrics), printed(self.number)
        measured = [summarise(metrics, run, protocol, spec.seeds) for run in spec.runs for protocol in spec.protocols]
        best = {id(row): cells for row, cells in zip(measured, to_best(measured), strict=True)}
        rows, placed = [], set()
        for _, line in paper.iterrows():
            key = tuple(line[list(self.keys[: self.identity])])
            beside = [row for row in measured if self._row_of(row.run) == key]
            placed |= {id(row) for row in beside}
            rows += [self._row(line, row) | best[id(row)] for row in beside] or [self._not_run(line)]
        rows += [self._row(None, row) | best[id(row)] for row in measured if id(row) not in placed]
        columns = [*self.keys, *MEASURED, *self._paper_columns(paper), "paper_setting", "delta_mr", "status", "note"]
        return pd.DataFrame(rows, columns=columns)

    def _row_of(self, run: TableRun) -> tuple[str, ...] | None:
        """The key of the printed row that matches the run; None if the run is not part of this ablation."""
        options = run.options
        if not isinstance(options, CmerOptions) or options.variant not in self.variants:
            return None
        return self.values(options)[: self.identity]

    def _paper_columns(self, paper: pd.DataFrame) -> list[str]:
        return [f"paper_{name}" for name in paper.columns if name not in self.keys]

    def _paper_cells(self, line: pd.Series) -> dict[str, str]:
        datasets = " and ".join(self.mr)
        values = {f"paper_{name}": str(value) for name, value in line.items() if name not in self.keys}
        return values | {"paper_setting": f"{datasets}, {ABLATION_BACKBONE}"}

    def _not_run(self, line: pd.Series) -> dict[str, str]:
        keys = {name: str(line[name]) for name in self.keys}
        return keys | self._paper_cells(line) | {"status": "not run here"}

    def _row(self, line: pd.Series | None, row: Measured) -> dict[str, str]:
        options = row.run.options
        cells = row.cells() | {
            "iqt": number(sum(row.recalls[name] for name in RECALLS[:3])),
            "tqi": number(sum(row.recalls[name] for name in RECALLS[3:])),
            "status": "no printed row",
        }
        if isinstance(options, CmerOptions):
            cells |= dict(zip(self.keys, self.values(options), strict=True))
        if line is None:
            return cells
        differs = self._differs(row)
        cells |= self._paper_cells(line) | {"status": "other " + ", ".join(differs)}
        if not differs:
            cells["status"] = "same setting as the printed row"
            cells["delta_mr"] = signed(row.mr - float(line[self.mr[row.run.dataset_title]]))
        return cells

    def _differs(self, row: Measured) -> list[str]:
        options = row.run.options
        presumed = "oracle" if isinstance(options, CmerOptions) and options.variant == "d2" else "none"
        differs = {
            "dataset": row.run.dataset_title not in self.mr,
            "backbone": row.run.backbone_printed != ABLATION_BACKBONE,
            "options": bool(differences(options, ignoring=self.varied)),
            "label protocol": row.protocol != presumed,
        }
        return [name for name, yes in differs.items() if yes]
