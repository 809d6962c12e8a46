"""Tables 4 (parts of CMER), 5 (size and focus field of the adapter) and 6 (queue length)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from cmer.methods.cmer.options import CmerOptions
from cmer.reporting.measured import BUDGET, RECALLS, Measured, Metrics, TableRun, difference, number, summarise
from cmer.reporting.naming import differences, variant
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
    *("seeds", "params_m", *BUDGET),
]


def _parts(options: CmerOptions) -> tuple[str, ...]:
    parts = (options.text == "lora", options.focus_adapter, options.queue_batches > 0, options.scene_prompt)
    return (variant(options), *(str(int(part)) for part in parts))


def _adapter(options: CmerOptions) -> tuple[str, ...]:
    return (str(options.hidden), str(options.focus_field), str(options.heads))


def _queue(options: CmerOptions) -> tuple[str, ...]:
    return (str(options.queue_batches),)


@dataclass(frozen=True)
class Ablation:
    """One ablation table.

    Attributes:
        keys: its columns that say what is varied.
        values: the same cells, told from a run's options.
        identity: the number of leading keys that decide which printed row a run belongs to.
        variants: the variants of CMER that it is about.
        varied: the options that it varies.
        mr: column of the printed mR by dataset title.
    """

    keys: tuple[str, ...]
    values: Callable[[CmerOptions], tuple[str, ...]]
    identity: int
    variants: tuple[str, ...]
    varied: frozenset[str]
    mr: dict[str, str]

    def row_of(self, run: TableRun) -> tuple[str, ...] | None:
        """The key of the printed row that the run stands beside; None if it is about something else."""
        options = run.options
        if not isinstance(options, CmerOptions) or variant(options) not in self.variants:
            return None
        return self.values(options)[: self.identity]


ABLATIONS = {
    4: Ablation(
        keys=("ablation", "text_lora", "focus_adapter", "negative_recycling", "scene_prompt"),
        values=_parts,
        identity=1,
        variants=("v1", "v2", "d1", "d2"),
        varied=frozenset(),
        mr={"RSICD": "mr_rsicd", "RSITMD": "mr_rsitmd"},
    ),
    5: Ablation(
        keys=("hidden_dim", "focus_field", "heads"),
        values=_adapter,
        identity=3,
        variants=("v2",),
        varied=frozenset({"hidden", "focus_field", "heads"}),
        mr={ABLATION_DATASET: "mr"},
    ),
    6: Ablation(
        keys=("queue_length_batches",),
        values=_queue,
        identity=1,
        variants=("v2", "d1"),
        varied=frozenset({"queue_batches"}),
        mr={ABLATION_DATASET: "mr"},
    ),
}


def ablation(
    table: int, metrics: Metrics, runs: Sequence[TableRun], protocols: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Every printed row with the measured rows of the same options beside it, then the runs that fit no printed row.

    `delta_mr` is filled only where dataset, backbone, all options and the label protocol are the printed row's; the
    protocol is `none`, and `oracle` for d2.
    """
    layout, paper = ABLATIONS[table], printed(table)
    measured = [summarise(metrics, run, protocol, seeds) for run in runs for protocol in protocols]
    rows, placed = [], set()
    for _, line in paper.iterrows():
        key = tuple(line[list(layout.keys[: layout.identity])])
        beside = [row for row in measured if layout.row_of(row.run) == key]
        placed |= {id(row) for row in beside}
        rows += [_row(layout, line, row) for row in beside] or [_not_run(layout, line)]
    rows += [_row(layout, None, row) for row in measured if id(row) not in placed]
    columns = [*layout.keys, *MEASURED, *_paper_columns(layout, paper), "paper_setting", "delta_mr", "status", "note"]
    return pd.DataFrame(rows, columns=columns)


def _paper_columns(layout: Ablation, paper: pd.DataFrame) -> list[str]:
    return [f"paper_{name}" for name in paper.columns if name not in layout.keys]


def _paper_cells(layout: Ablation, line: pd.Series) -> dict[str, str]:
    datasets = " and ".join(layout.mr)
    values = {f"paper_{name}": str(value) for name, value in line.items() if name not in layout.keys}
    return values | {"paper_setting": f"{datasets}, {ABLATION_BACKBONE}"}


def _not_run(layout: Ablation, line: pd.Series) -> dict[str, str]:
    keys = {name: str(line[name]) for name in layout.keys}
    return keys | _paper_cells(layout, line) | {"status": "not run here"}


def _row(layout: Ablation, line: pd.Series | None, row: Measured) -> dict[str, str]:
    options = row.run.options
    cells = row.cells() | {
        "iqt": number(sum(row.recalls[name] for name in RECALLS[:3])),
        "tqi": number(sum(row.recalls[name] for name in RECALLS[3:])),
        "status": "no printed row",
    }
    if isinstance(options, CmerOptions):
        cells |= dict(zip(layout.keys, layout.values(options), strict=True))
    if line is None:
        return cells
    differs = _differs(layout, row)
    cells |= _paper_cells(layout, line) | {"status": "other " + ", ".join(differs)}
    if not differs:
        cells["status"] = "same setting as the printed row"
        cells["delta_mr"] = difference(row.mr, str(line[layout.mr[row.run.dataset_title]]))
    return cells


def _differs(layout: Ablation, row: Measured) -> list[str]:
    presumed = "oracle" if variant(row.run.options) == "d2" else "none"
    differs = {
        "dataset": row.run.dataset_title not in layout.mr,
        "backbone": row.run.backbone_printed != ABLATION_BACKBONE,
        "options": bool(differences(row.run.options, ignoring=layout.varied)),
        "label protocol": row.protocol != presumed,
    }
    return [name for name, yes in differs.items() if yes]
