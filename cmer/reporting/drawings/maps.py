"""Drawing of heat maps over their images."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from cmer.reporting.figures.grad_cam import Pair
from cmer.reporting.queries import readable
from cmer.reporting.style import PAGE, STYLE

COLOURS, OPACITY = "inferno", 0.6
"""From dark to bright, so that it is readable without colour vision (chosen here)."""
SIDE = 160
"""Side of a panel's picture, pixels."""
PANEL = 1.35
"""Height of a row and greatest width of a column, inches."""
REST = 0.45
"""Height of the headings and of the note, inches."""
NOTE = "shuffled: mean rank correlation with maps of shuffled weights; near 0, a map shows what was learned"


CLOSE = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
"""Panels with little between them."""


def draw(shown: Mapping[str, Sequence[Pair]]) -> Figure:
    """A row per caption: the image, then a panel for each run and part, with its correlation under it."""
    columns = [(run, part) for run, pairs in shown.items() for part in pairs[0].maps]
    pairs = next(iter(shown.values()))
    with rc_context(STYLE):
        width = min(PAGE, PANEL * (len(columns) + 2))
        panel = width / (len(columns) + 2)
        figure = Figure((width, (panel + 0.16) * len(pairs) + REST), dpi=300, layout=CLOSE)
        grid = figure.subplots(len(pairs), len(columns) + 2, squeeze=False)
        for row, axes in enumerate(grid):
            for each in axes:
                each.set_xticks([])
                each.set_yticks([])
                each.spines[:].set_visible(False)
            lines = textwrap.fill(readable(pairs[row].caption), 21)
            axes[0].text(1, 0.5, lines, ha="right", va="center", transform=axes[0].transAxes)
            axes[1].imshow(_picture(pairs[row]), interpolation="none")
            for axes_of_map, (run, part) in zip(axes[2:], columns, strict=True):
                _overlay(axes_of_map, shown[run][row], part)
        for axes_of_map, heading in zip(
            grid[0][1:], ["image", *("\n".join(column) for column in columns)], strict=True
        ):
            axes_of_map.set_title(heading, size=STYLE["font.size"], pad=3)
        figure.supxlabel(NOTE, size="small")
    return figure


def _picture(pair: Pair) -> Image.Image:
    picture = Image.open(BytesIO(base64.b64decode(pair.picture))).convert("RGB")
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _overlay(axes: Axes, pair: Pair, part: str) -> None:
    """The map, enlarged bicubically, over its image in grey; one picture, so that vector files stay small."""
    values = Image.fromarray(np.array(pair.maps[part], np.float32))
    enlarged = np.clip(np.asarray(values.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), 0, 1)
    grey = np.asarray(_picture(pair).convert("L"))[..., None] / 255
    axes.imshow((1 - OPACITY) * grey + OPACITY * colormaps[COLOURS](enlarged)[..., :3], interpolation="none")
    correlation = f"shuffled: $\\rho={pair.shuffled[part]:.2f}$"
    axes.set_xlabel(correlation if enlarged.any() else "nothing adds to the score", labelpad=1)
