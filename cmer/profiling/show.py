"""Display of a profile on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from cmer.progress import console

REFERENCES = ("clip_adapter", "clip_lora")
"""Baselines with which the paper compares CMER's memory and speed."""
WIDTH = 170  # columns that the table of costs needs, also used if the output is not a terminal
MB = 1e6

Row = Mapping[str, Any]


def show(result: Mapping[str, Any]) -> None:
    """Print the costs in a profile, and their ratios to those of `REFERENCES` that are among its methods.

    Args:
        result: as `profile` returns it.
    """
    terminal = console()
    terminal = terminal if terminal.is_terminal else console(width=WIDTH)
    terminal.print(_costs(result))
    last = max(row["batch"] for row in result["rows"])
    for setting in dict.fromkeys(row["setting"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["setting"] == setting and row["batch"] == last]
        slopes = {line["run"]: line["bytes_per_pair"] for line in result["saved"] if line["setting"] == setting}
        references = [row for row in rows if row["method"] in REFERENCES]
        if references and len(rows) > 1:
            terminal.print(_ratios(f"{setting}, batch {last}: ratios", rows, slopes, references))


def _costs(result: Mapping[str, Any]) -> Table:
    gpu = result["device"].startswith("cuda")
    peak = "all tensors, including weights" if gpu else "resident memory above that with weights and optimiser loaded"
    caption = (
        "kept: bytes for the backward pass, and their slope over the batch size. GMACs: 10^9 multiply-accumulates per "
        f"pair. peak: {peak}. pairs/s: median over all rounds, and medians of the slowest and fastest round."
    )
    table = Table(title=f"{result['backbone']} on {result['device']}", box=box.SIMPLE_HEAD, caption=caption)
    for name in ("run", "setting", "batch", "tokens", "trained M", "kept MB", "kept MB/pair"):
        table.add_column(name, justify="left" if name in ("run", "setting") else "right")
    for name in ("GMACs forward", "backward", "peak MB", "pairs/s", "slowest", "fastest"):
        table.add_column(name, justify="right")
    slopes = {(line["run"], line["setting"]): line["bytes_per_pair"] for line in result["saved"]}
    for row in result["rows"]:
        table.add_row(
            *(row["run"], row["setting"], str(row["batch"]), str(row["tokens"])),
            *(f"{row['parameters'] / 1e6:.2f}", _mb(row["saved_bytes"]), _mb(slopes[row["run"], row["setting"]])),
            *(_number(row[f"macs_{way}"], row["batch"] * 1e9) for way in ("forward", "backward")),
            _mb(row["peak_bytes"]),
            *(_number(row[f"pairs_per_second{end}"]) for end in ("", "_low", "_high")),
        )
    return table


def _ratios(title: str, rows: Sequence[Row], slopes: Mapping[str, float | None], references: Sequence[Row]) -> Table:
    caption = (
        "in parentheses: ratio of multiply-accumulates, that of pairs/s if all arithmetic were equally fast; and the "
        "ratio of a run that does nothing but read its stored features"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=caption)
    table.add_column("run", min_width=max(len(row["run"]) for row in rows))
    for reference in references:
        for what in ("kept/pair", "peak", "pairs/s"):
            table.add_column(f"{what} to {reference['run']}", justify="right")
    for row in rows:
        cells = []
        for reference in references:
            cells.append(_ratio(slopes[row["run"]], slopes[reference["run"]]))
            cells.append(_ratio(row["peak_bytes"], reference["peak_bytes"]))
            bounds = _ratio(_macs(reference), _macs(row))
            if row.get("stored"):
                bounds += f"; {_ratio(row['read_pairs_per_second'], reference['pairs_per_second'])}"
            cells.append(f"{_ratio(row['pairs_per_second'], reference['pairs_per_second'])} ({bounds})")
        table.add_row(row["run"], *cells)
    return table


def _macs(row: Row) -> float | None:
    forward, backward = row["macs_forward"], row["macs_backward"]
    return None if forward is None or backward is None else forward + backward


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value / MB:,.1f}"


def _number(value: float | None, unit: float = 1) -> str:
    return "-" if value is None else f"{value / unit:,.2f}"


def _ratio(value: float | None, reference: float | None) -> str:
    return "-" if value is None or not reference else f"{value / reference:.2f}"
