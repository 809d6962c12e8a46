"""A table of results on the terminal."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

from cmer.reporting.efficiency import PAPER_RATIOS, RATIOS
from cmer.reporting.measured import RECALLS

LEFT_OUT = [
    *("source", "options", "text_encoder", "mr_ci_low", "mr_ci_high", "seeds", "pairs_seen", "status", "note"),
    *("paper_setting", "paper_memory_mb", "paper_throughput_pairs_s"),
    *("saved_mb_fixed", "reserved_mb", "pairs_per_s_low", "pairs_per_s_high", *PAPER_RATIOS),
    *(name for name in RATIOS if name.endswith("clip_lora")),
    *("gmacs_forward_per_pair", "gmacs_backward_per_pair", "precision", "attention", "tokens", "device", "threads"),
]
NUMBERS = (
    *("i2t_", "t2i_", "mr", "paper_", "delta_", "params", "train_", "epochs"),
    *("batch", "saved_", "memory_", "speed_", "pairs_"),
)
WHOLE = ("run", "method", "setting")  # not broken into lines
BOLD = "Bold: measured here."
PROTOCOLS = (
    "Queries under oracle hold the true scene label of the test image: no row of another protocol compares with them."
)
WIDTH = 170  # what the six recalls need, and what is assumed where the output is not a terminal
WIDE = ["dataset", "params_m", "train_images", "epochs", *RECALLS]  # left out where the terminal is narrower


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
    captions = [BOLD] * ("source" in table) + [PROTOCOLS] * ("label_protocol" in table)
    if set(table.get("mr_std", [])) - {""} == {"one seed"}:
        short = short.drop(columns="mr_std")
        captions.append("One seed.")
    short = short.loc[:, (short != "").any()]
    short["backbone"] = short["backbone"].str.partition(" (")[0]
    view = Table(title=title, box=box.SIMPLE_HEAD, caption=" ".join(captions))
    for name in short.columns:
        justify: JustifyMethod = "right" if name.startswith(NUMBERS) else "left"
        view.add_column(name.replace("_", " "), justify=justify, no_wrap=name in WHOLE)
    for (_, row), source in zip(short.iterrows(), table.get("source", pd.Series("", table.index)), strict=True):
        view.add_row(*row, style="bold" if source == "measured" else None)
    console.print(view)
