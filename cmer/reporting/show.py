"""A table of results on the terminal."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cmer.reporting.measured import RECALLS

LEFT_OUT = [
    *("options", "text_encoder", "mr_ci_low", "mr_ci_high", "seeds", "training_budget", "status", "note"),
    *("paper_setting", "paper_memory_mb", "paper_throughput_pairs_s"),
]
CAPTION = (
    "Queries under oracle hold the true scene label of the test image: no row of another protocol compares with them."
)
WIDTH = 170  # what the six recalls need, and what is assumed where the output is not a terminal
WIDE = ["source", "dataset", "params_m", *RECALLS]  # left out where the terminal is narrower


def show(table: pd.DataFrame, title: str) -> None:
    """Print the columns of a results table that fit the terminal; the CSV has all.

    Args:
        table: cells are strings.
        title: printed above.
    """
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    left_out = LEFT_OUT if console.width >= WIDTH else [*LEFT_OUT, *WIDE]
    short = table.drop(columns=left_out, errors="ignore")
    short = short.loc[:, (short != "").any()]
    short["backbone"] = short["backbone"].str.partition(" (")[0]
    view = Table(title=title, box=box.SIMPLE_HEAD, caption=CAPTION)
    for name in short.columns:
        numeric = name.startswith(("i2t_", "t2i_", "mr", "paper_", "delta_", "params"))
        view.add_column(name.replace("_", " "), justify="right" if numeric else "left", no_wrap=name == "run")
    for (_, row), source in zip(short.iterrows(), table.get("source", pd.Series("", table.index)), strict=True):
        view.add_row(*row, style="bold" if source == "measured" else None)
    console.print(view)
