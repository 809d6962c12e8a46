"""The focus field of the side branch."""

from __future__ import annotations

from cmer.registry import FIGURES
from cmer.reporting.option_figure import OptionFigure


@FIGURES.register("focus_field")
class FocusField(OptionFigure):
    """The mR by focus field, a line per width of the side branch, with 95 % bootstrap intervals over test images."""

    option, label, line = "focus_field", "focus field, patches", "hidden"
