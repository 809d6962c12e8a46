"""The length of the negative queue."""

from __future__ import annotations

from cmer.registry import FIGURES
from cmer.reporting.option_figure import OptionFigure


@FIGURES.register("queue_length")
class QueueLength(OptionFigure):
    """The mR by the length of the negative queue, with 95 % bootstrap intervals over test images."""

    option, label = "queue_batches", "length of the negative queue, batches"
