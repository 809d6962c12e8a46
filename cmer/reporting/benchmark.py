"""Tables 1 (RSITMD) and 2 (RSICD): the comparison with other systems."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cmer.reporting.measured import BUDGET, RECALLS, Measured, Metrics, TableRun, difference, number, of_run, summarise
from cmer.reporting.naming import differences, printed_name, slug, variant
from cmer.reporting.paper import DATASET, printed

COLUMNS = [
    *("source", "method", "options", "run", "dataset", "backbone", "text_encoder", "label_protocol", "params_m"),
    *RECALLS,
    *("mr", "mr_std", "mr_ci_low", "mr_ci_high", "paper_mr", "delta_mr", "seeds", *BUDGET, "status", "note"),
]
PRESUMED = "presumed protocol: true scene label in the test query"


def benchmark(
    table: int, metrics: Metrics, runs: Sequence[TableRun], protocols: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Every printed row, then every measured run under every protocol, then the control of each dataset.

    `delta_mr` is filled only where dataset, backbone, system and label protocol are the printed row's. CMER's is
    taken against `oracle`: its printed numbers are explained only by true labels in the test queries.
    """
    paper = printed(table)
    measured = [summarise(metrics, run, protocol, seeds) for run in runs for protocol in protocols]
    matches = [_match(row, paper, DATASET[table]) for row in measured]
    rows = [_paper_row(row, DATASET[table], _ran(index, measured, matches)) for index, row in paper.iterrows()]
    rows += [_measured_row(row, paper, *match) for row, match in zip(measured, matches, strict=True)]
    datasets = {run.dataset: run for run in runs}
    rows += [_control_row(metrics, run, seeds) for run in datasets.values()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _match(row: Measured, paper: pd.DataFrame, dataset: str) -> tuple[int | None, str]:
    """Index of the printed row that this one repeats, or None and in what it differs from all of them."""
    run = row.run
    same_method = paper["method"].map(slug) == run.method
    same_backbone = paper["backbone_vision"] == run.backbone_printed
    is_cmer = run.method == "cmer"
    differs = {
        "dataset": run.dataset_title != dataset,
        "method": not same_method.any() or bool(differences(run.options)) or (is_cmer and variant(run.options) != "d2"),
        "backbone": not (same_backbone & same_method).any(),
        "label protocol": row.protocol != ("oracle" if is_cmer else "none"),
    }
    found = [name for name, yes in differs.items() if yes]
    if found:
        return None, "other " + ", ".join(found)
    return int(paper.index[same_method & same_backbone][0]), "same setting as the printed row"


def _ran(index: object, measured: Sequence[Measured], matches: Sequence[tuple[int | None, str]]) -> str:
    names = [row.run.name for row, (match, _) in zip(measured, matches, strict=True) if match == index]
    return f"run here: {', '.join(names)}" if names else "not run here"


def _paper_row(row: pd.Series, dataset: str, status: str) -> dict[str, str]:
    cmer = slug(row["method"]) == "cmer"
    return row.to_dict() | {
        "source": "paper",
        "dataset": dataset,
        "backbone": row["backbone_vision"],
        "text_encoder": row["backbone_text"],
        "label_protocol": "oracle" if cmer else "none",
        "status": status,
        "note": PRESUMED if cmer else "",
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
        cells |= {"paper_mr": printed_mr, "delta_mr": difference(row.mr, printed_mr)}
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
