"""Drawing of steps from one recall to the next."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cmer.reporting.style import COLUMN, PAGE, PALETTE, STYLE

GAIN, DROP, LABELS, TOTAL = PALETTE[0], PALETTE[1], PALETTE[3], "0.65"
"""Colours of a gain, a drop, the part of true labels, and the first run."""
HEIGHT, WIDE = 2.6, 5
"""Height of the figure in inches; number of bars above which it has the width of a page."""


def draw(points: pd.DataFrame, dataset: str) -> Figure:
    """A bar from each recall to the next, with the interval of their difference around its end."""
    values, last = points["mr"].tolist(), len(points) - 1
    low = min(*values, *(values[i - 1] + points["low"][i] for i in range(1, len(points))))
    high = max(*values, *(values[i - 1] + points["high"][i] for i in range(1, len(points))))
    floor = low - 0.35 * max(high - low, 1)
    with rc_context(STYLE):
        figure = Figure((PAGE if len(points) > WIDE else COLUMN, HEIGHT), layout="constrained")
        axes = figure.subplots()
        for place, value in enumerate(values):
            start = values[place - 1] if place else floor
            colour = TOTAL if not place else LABELS if place == last else GAIN if value >= start else DROP
            axes.bar(place, value - start, bottom=start, width=0.6, color=colour)
            text = f"{value:.1f}"
            if place:
                bounds = [
                    [max(value - start - points["low"][place], 0)],
                    [max(points["high"][place] - value + start, 0)],
                ]
                axes.errorbar(place, value, bounds, color="0.2", linewidth=0.7, capsize=2)
                axes.plot([place - 1, place], [start, start], color="0.4", linewidth=0.5)
                text = f"{value - start:+.1f}"
            axes.annotate(text, (place, max(value, start)), (9, 2), textcoords="offset points", size="small")
        axes.set_ylim(floor, high + 0.15 * max(high - low, 1))
        axes.set_xlim(-0.5, last + 0.75)
        axes.set_xticks(range(len(points)), [fill(step, 13) for step in points["step"]])
        axes.set_ylabel(f"test mR on {dataset}, %")
        named = ((GAIN, "gain"), (DROP, "drop"), (LABELS, "owed to test labels"))
        figure.legend(
            handles=[Patch(color=colour, label=name) for colour, name in named],
            title="changes in mR with 95 % paired bootstrap intervals;\nthe axis does not start at 0",
            loc="outside lower center",
            ncols=3,
        )
    return figure
