"""A table of results on the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from cmer.profiling.show import REFERENCES
from cmer.progress import CONTROL, console, visible
from cmer.reporting.efficiency import PAPER_RATIOS
from cmer.reporting.metrics import RECALLS

LEFT_OUT = (
    *("source", "options", "text_encoder", "mr_ci_low", "mr_ci_high", "seeds", "pairs_seen", "status", "note"),
    *("best_run", "delta_best_ci_low", "delta_best_ci_high"),
    *("paper_setting", "paper_memory_mb", "paper_throughput_pairs_s"),
    *("saved_mb_fixed", "reserved_mb", "pairs_per_s_low", "pairs_per_s_high", *PAPER_RATIOS),
    *("gmacs_forward_per_pair", "gmacs_backward_per_pair", "precision", "attention", "tokens", "device", "threads"),
)
FIRST = (["method"], ["label_protocol", "mr"], ["run"], ["backbone"], ["dataset"])
"""The most important columns, in groups of which all or none are shown; columns that are not named here follow."""
LAST = (
    *(["delta_mr"], ["delta_best", "supported"], ["paper_mr"], ["paper_mr_rsicd", "paper_mr_rsitmd"], ["mr_std"]),
    *(["params_m"], ["epochs"], ["train_images"], list(RECALLS), ["iqt", "tqi"], ["paper_iqt", "paper_tqi"]),
)
"""The least important ones: a narrow terminal lacks these first, from the end."""
COMMON = ("dataset", "backbone", "train_images", "epochs")
"""Columns that a sentence stands for where all rows have the same value."""
NUMBERS = (
    *("i2t_", "t2i_", "mr", "paper_", "delta_", "params", "train_", "epochs", "iqt", "tqi"),
    *("batch", "saved_", "memory_", "speed_", "pairs_"),
)
ORDER = {"measured": 0, "paper": 2}
"""Rank of a row by its source; other sources, such as controls, lie between."""
PROTOCOLS = (
    "Queries under oracle hold the true scene label of the test image: no row of another protocol compares with them."
)
WIDTH = 100
"""Columns that are assumed where the output is not a terminal."""
GAP = 2
"""Characters between two columns."""
MOST_ROWS = 1000


def show(table: pd.DataFrame, title: str, printed: bool = False) -> None:
    """Print the measured rows of a results table, and the columns that fit the terminal; the CSV has all.

    Printed rows follow where dataset and backbone are those of a measured row, or where nothing was measured.

    Args:
        table: any table; of more than `MOST_ROWS` rows, the first ones are printed.
        title: printed above.
        printed: print all printed rows.
    """
    terminal = console()
    if not terminal.is_terminal and "COLUMNS" not in os.environ:
        terminal = console(width=WIDTH)
    table = table.astype(str).replace(CONTROL, "\N{REPLACEMENT CHARACTER}", regex=True)
    kinds = _chosen(table, printed)
    rows = table.loc[kinds.index]
    short = _columns(rows)
    terminal.print(Text(visible(title), style="bold"), soft_wrap=True)
    terminal.print(_view(short[_fitting(short, terminal.width)][:MOST_ROWS], kinds[:MOST_ROWS], terminal.width))
    for sentence in _sentences(rows, kinds, hidden=len(table) - len(rows)):
        terminal.print(Text(sentence, style="dim"))


def _chosen(table: pd.DataFrame, printed: bool) -> pd.Series:
    """The kind of each row to print, in their order, by its index in the table."""
    kinds = _kinds(table)
    everything = printed or "measured" not in set(kinds)
    kinds = kinds[(kinds != "paper") | _beside(table, kinds) | everything]
    return kinds.iloc[kinds.map(lambda kind: ORDER.get(kind, 1)).argsort(kind="stable")]


def _columns(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that say something about these rows, whether they fit or not.

    Of the ratios, only those to the first of the paper's references count.
    """
    ratios = [name for name in map(str, rows) if "_ratio_to_" in name and not name.endswith(f"_to_{REFERENCES[0]}")]
    short = rows.drop(columns=[*LEFT_OUT, *ratios, *_common(rows), *["mr_std"] * _one_seed(rows)], errors="ignore")
    short = short.loc[:, (short != "").any()]
    if "backbone" in short:
        short["backbone"] = short["backbone"].str.partition(" (")[0]
    return short


def _kinds(table: pd.DataFrame) -> pd.Series:
    """Whether each row is measured, a control, or the paper's; tables of ablations have printed values in all rows."""
    if "source" in table:
        return table["source"]
    return _column(table, "run").map(lambda run: "measured" if run else "paper")


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    return table.get(name, pd.Series("", table.index))


def _beside(table: pd.DataFrame, kinds: pd.Series) -> pd.Series:
    """Whether dataset and backbone of each row are those of a measured one."""
    where = _column(table, "dataset") + ", " + _column(table, "backbone")
    measured = set(where[kinds == "measured"])
    if "paper_setting" in table:
        where = where.where(kinds != "paper", table["paper_setting"])
    found = where.map(lambda setting: setting.rpartition(", "))
    return found.map(lambda parts: any(f"{name}, {parts[2]}" in measured for name in parts[0].split(" and "))).astype(
        bool
    )


def _common(rows: pd.DataFrame) -> dict[str, str]:
    """The values that all rows share, by the name of their column."""
    found = {name: set(rows[name]) - {""} for name in COMMON if name in rows}
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _one_seed(rows: pd.DataFrame) -> bool:
    return set(_column(rows, "mr_std")) - {""} == {"one seed"}


def _fitting(rows: pd.DataFrame, width: int) -> list[str]:
    """The most important columns, as many as fit, in the table's order."""
    named = {name for group in (*FIRST, *LAST) for name in group}
    chosen: list[str] = []
    for group in [*FIRST, *([name] for name in rows.columns if name not in named), *LAST]:
        wanted = chosen + [name for name in group if name in rows]
        if not chosen or sum(_width(rows[name]) + GAP for name in wanted) - GAP <= width:
            chosen = wanted
    return [name for name in rows.columns if name in chosen]


def _width(column: pd.Series) -> int:
    """No cell is broken, nor a word of the heading."""
    return max(map(cell_len, [*str(column.name).split("_"), *column]))


def _view(rows: pd.DataFrame, kinds: pd.Series, widest: int) -> Table:
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))  # the box adds one
    for name in rows.columns:
        justify: JustifyMethod = "right" if name.startswith(NUMBERS) else "left"
        width = min(_width(rows[name]), widest)
        view.add_column(
            Text(name.replace("_", " ")), justify=justify, vertical="bottom", min_width=width, max_width=width
        )
    for (_, row), kind in zip(rows.iterrows(), kinds, strict=True):
        view.add_row(*map(Text, row), style="bold" if kind == "measured" else None)
    return view


def _sentences(rows: pd.DataFrame, kinds: pd.Series, hidden: int) -> Sequence[str]:
    """What a reader of these rows should know."""
    common = [f"{name.replace('_', ' ')} {value}" for name, value in _common(rows).items()]
    common += ["one seed"] * _one_seed(rows)
    return [
        *["It has no rows."] * rows.empty,
        *[f"The file has {len(rows) - MOST_ROWS:,} more rows."] * (len(rows) > MOST_ROWS),
        *[f"Throughout: {', '.join(common)}."] * bool(common),
        *["Measured rows are bold; printed ones have no run."] * ({"measured", "paper"} <= set(kinds)),
        *[PROTOCOLS] * ("oracle" in set(_column(rows, "label_protocol"))),
        *[f"{hidden} printed rows on other datasets or backbones are hidden; --printed shows them."] * (hidden > 0),
    ]
