"""Tables that compare systems by recall, with the printed values beside the measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pandas as pd

from cmer.reporting.base import Files, Table, TableSpec
from cmer.reporting.comparison import TO_BEST, to_best
from cmer.reporting.measured import BUDGET, Measured, number, signed, summarise
from cmer.reporting.metrics import RECALLS, Metrics, TableRun, of_run, read_metrics
from cmer.reporting.naming import differences, printed_name, slug
from cmer.reporting.paper import DATASET, presumed_protocol, printed

COLUMNS = [
    *("source", "method", "options", "run", "dataset", "backbone", "text_encoder", "label_protocol", "params_m"),
    *RECALLS,
    *("mr", "mr_std", "mr_ci_low", "mr_ci_high", "paper_mr", "delta_mr", *TO_BEST, "seeds", *BUDGET, "status", "note"),
]
PRESUMED = "presumed protocol: true scene label in the test query"


class Benchmark(Table):
    """Every printed row, then every measured run under every protocol, then the control of each dataset.

    `delta_best` compares with the best run on the same dataset and label protocol, and `supported` says whether its
    interval excludes zero. `delta_mr` is filled only where dataset, backbone, system and label protocol are those of
    the printed row. CMER is compared under `oracle`: only true labels in the test queries explain its printed numbers.

    Class attributes:
        number: number of the printed table.
    """

    reads = ("metrics",)
    number: ClassVar[int]

    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """See `Table`."""
        metrics, paper, dataset = read_metrics(files.metrics), printed(self.number), DATASET[self.number]
        measured = [summarise(metrics, run, protocol, spec.seeds) for run in spec.runs for protocol in spec.protocols]
        matches = [_match(row, paper, dataset) for row in measured]
        rows = [_paper_row(row, dataset, _ran(index, measured, matches)) for index, row in paper.iterrows()]
        rows += [
            _measured_row(row, paper, *match) | best
            for row, match, best in zip(measured, matches, to_best(measured), strict=True)
        ]
        datasets = {run.dataset: run for run in spec.runs}
        rows += [_control_row(metrics, run, spec.seeds) for run in datasets.values()]
        return pd.DataFrame(rows, columns=COLUMNS)


def _match(row: Measured, paper: pd.DataFrame, dataset: str) -> tuple[int | None, str]:
    """Index of the printed row with the same setting, or None; and the cell that says so or lists the differences."""
    run = row.run
    same_method = paper["method"].map(slug) == run.method
    same_backbone = paper["backbone_vision"] == run.backbone_printed
    differs = {
        "dataset": run.dataset_title != dataset,
        "method": not same_method.any() or bool(differences(run.options)) or run.options.variant_title() is not None,
        "scores (reranked)": run.reranker is not None,
        "backbone": not (same_backbone & same_method).any(),
        "label protocol": row.protocol != presumed_protocol(run.method),
    }
    found = [name for name, yes in differs.items() if yes]
    if found:
        return None, "other " + ", ".join(found)
    return int(paper.index[same_method & same_backbone][0]), "same setting as the printed row"


def _ran(index: object, measured: Sequence[Measured], matches: Sequence[tuple[int | None, str]]) -> str:
    names = [row.run.name for row, (match, _) in zip(measured, matches, strict=True) if match == index]
    return f"run here: {', '.join(names)}" if names else "not run here"


def _paper_row(row: pd.Series, dataset: str, status: str) -> dict[str, str]:
    protocol = presumed_protocol(slug(row["method"]))
    return row.to_dict() | {
        "source": "paper",
        "dataset": dataset,
        "backbone": row["backbone_vision"],
        "text_encoder": row["backbone_text"],
        "label_protocol": protocol,
        "status": status,
        "note": PRESUMED if protocol == "oracle" else "",
    }


def _measured_row(row: Measured, paper: pd.DataFrame, match: int | None, status: str) -> dict[str, str]:
    cells = row.cells() | {name: number(row.recalls[name]) for name in RECALLS}
    cells |= {
        "source": "measured",
        "method": printed_name(row.run.method, row.run.options, paper["method"].tolist()),
        "status": status,
    }
    if match is not None:
        printed_mr = str(paper.at[match, "mr"])
        cells |= {"paper_mr": printed_mr, "delta_mr": signed(row.mr - float(printed_mr))}
        if row.protocol == "oracle":
            cells["note"] += f"; {PRESUMED}"
    return cells


def _control_row(metrics: Metrics, run: TableRun, seeds: Sequence[int]) -> dict[str, str]:
    found = of_run(metrics, run, seeds)[0]["controls"]["label_only"]
    return {name: number(found[name]) for name in (*RECALLS, "mr")} | {
        "source": "control",
        "method": "Scene label only",
        "dataset": run.dataset_title,
        "label_protocol": "oracle",
        "note": "uses test labels; looks at neither image nor caption, class members in random order",
    }
