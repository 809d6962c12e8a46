"""Drawing of the benchmark of training steps: speed and kept bytes of every run over those of clip_adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cmer.reporting.style import PAGE, PALETTE, STYLE

REFERENCE = "clip_adapter"
ROW, REST = 0.17, 1.0
"""Height in inches of a row, and of everything else."""
MARKS: dict[str, dict[str, Any]] = {
    "measured": {"marker": "o", "color": PALETTE[0], "markersize": 4},
    "multiply-accumulates allow": {"marker": "|", "color": PALETTE[1], "markersize": 8, "markeredgewidth": 1.4},
    "reading stored features allows": {"marker": "|", "color": PALETTE[2], "markersize": 8, "markeredgewidth": 1.4},
}

Row = Mapping[str, Any]


def draw(rows: Sequence[Row]) -> Figure:
    """A line per run at the largest batch of its backbone: what was measured, and what limits its speed.

    Args:
        rows: as `bench_rows` returns them; backbones without the reference are left out.
    """
    lines = _lines(rows)
    names = [name if row is None else f"{row['run']}, {row['engine']}" for name, row in lines]
    with rc_context(STYLE):
        figure = Figure((PAGE, REST + ROW * len(lines)), dpi=300, layout="constrained")
        speed, kept = figure.subplots(1, 2, sharey=True)
        for height, (_, row) in enumerate(lines):
            if row is not None:
                ratios = row["ratios"][REFERENCE]
                for name, key in zip(MARKS, ("pairs_per_s", "mac_bound", "read_bound"), strict=True):
                    _mark(speed, ratios[key], height, name)
                _mark(kept, ratios["saved_bytes_per_pair"], height, "measured")
        speed.set_yticks(range(len(lines)), names)
        for (_, row), label in zip(lines, speed.get_yticklabels(), strict=True):
            label.set_fontweight("bold" if row is None else "normal")
        speed.set_ylim(-0.7, len(lines) - 0.3)
        for axes, what in ((speed, "pairs/s"), (kept, "bytes kept per pair")):
            _scale(axes, f"{what}, over those of {REFERENCE}")
        figure.legend(
            handles=[Line2D([], [], linestyle="", label=name, **mark) for name, mark in MARKS.items()],
            loc="outside lower center",
            ncols=3,
        )
    return figure


def _lines(rows: Sequence[Row]) -> list[tuple[str, Row | None]]:
    """From the lowest line to the highest: the rows to show, and above those of a backbone a heading without a row."""
    lines: list[tuple[str, Row | None]] = []
    for backbone, setting in dict.fromkeys((row["backbone"], row["setting"]) for row in rows):
        own = [row for row in rows if (row["backbone"], row["setting"]) == (backbone, setting)]
        batch = max(row["batch"] for row in own)
        shown = [row for row in own if row["batch"] == batch and REFERENCE in row["ratios"]]
        if shown:
            lines += [(f"{backbone}, {setting}, batch {batch}", None), *((row["run"], row) for row in shown)]
    return lines[::-1]


def _mark(axes: Axes, ratio: float | None, height: int, name: str) -> None:
    if ratio is not None and ratio > 0:
        axes.plot(ratio, height, linestyle="", **MARKS[name])
    elif ratio is not None:  # a run may keep nothing per pair, and the axis is logarithmic
        left = axes.get_yaxis_transform()
        axes.text(0.02, height, "0", transform=left, va="center", color=MARKS[name]["color"], weight="bold")


def _scale(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.25), max(high, 4))
    axes.set_xlabel(label)
    axes.axvline(1, color="0.6", linewidth=0.6, zorder=1)
    axes.grid(axis="both")
    axes.tick_params(axis="y", left=False)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
