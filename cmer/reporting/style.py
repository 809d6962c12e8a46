"""The style of all figures: fonts readable at the width of a printed column, colours distinguishable by everyone."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.0
"""Widths of a figure in inches: one printed column, or two."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, distinguishable with colour blindness."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 6.8,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "svg.hashsalt": "cmer",  # the same drawing gives the same bytes
}
"""Settings of matplotlib, within which figures are drawn and saved."""
NAMELESS: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Creator": None, "Date": None}}
"""Metadata that is left out, because it depends on the time or the library's version."""


def encoded(figure: Figure, format: str) -> bytes:
    """A figure as a file of format `png` or `svg`."""
    file = BytesIO()
    with rc_context(STYLE):
        figure.savefig(file, format=format, metadata=NAMELESS[format])
    return file.getvalue()
