"""Drawing of queries with the images that a run ranks first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from cmer.reporting.queries import readable
from cmer.reporting.style import COLUMN, PALETTE, STYLE
from cmer.retrieval.queries import TOP

RIGHT: dict[str, Any] = {"color": PALETTE[2], "linewidth": 1.8, "linestyle": "-"}
WRONG: dict[str, Any] = {"color": PALETTE[1], "linewidth": 1.0, "linestyle": (0, (4, 2))}
"""Frames in green and red, which also differ by width and line."""
BADGE = {"boxstyle": "square,pad=0.15", "facecolor": RIGHT["color"], "edgecolor": "none"}
"""Background of the tick on the right image."""
QUIET = "0.35"
"""Colour of what is not a caption."""
SIDE, MARGIN, GAP = 0.5, 0.05, 0.06
"""Side of a picture, space around the figure and between pictures, inches."""
FIRST = COLUMN - MARGIN - TOP * SIDE - (TOP - 1) * GAP
"""Left end of the images ranked first, inches."""
PIXELS = 150
"""Side of a picture: its pixels are those of the figure, 300 per inch."""
LINE = 0.125
"""Height of a line of text, inches."""
LINES, WIDEST = 3, 70
"""Maximum number of lines of a text, and of characters in a line."""
NOTE = (
    "Left: the image of the query. Right: the images ranked first. BLEU: of the query against the captions of the "
    "image ranked first, from 0 to 1."
)


@dataclass(frozen=True)
class Case:
    """A query: its caption, facts about it, its image, and the images ranked first, each with whether it is right.

    Pictures are squares of `PIXELS`.
    """

    caption: str
    facts: Sequence[str]
    image: Image.Image
    top: Sequence[tuple[Image.Image, bool]]


def draw(cases: Sequence[Case], title: str, where: str) -> Figure:
    """A row per query: caption and facts, under them its image and the images ranked first.

    `where` follows the title: run, dataset and label protocol.
    """
    with rc_context(STYLE):
        heading, place, note = wrapped(title, "bold"), wrapped(where), wrapped(NOTE)
        rows = [(case, wrapped(readable(case.caption)), wrapped(_together(case.facts))) for case in cases]
        texts = [heading, place, note, *(lines for _, *both in rows for lines in both)]
        height = LINE * sum(map(len, texts)) + (SIDE + 3 * GAP) * len(rows) + GAP + 2 * MARGIN
        page = _Page(Figure((COLUMN, height), dpi=300), height)
        page.write(heading, weight="bold")
        page.write(place, color=QUIET)
        page.skip(GAP)
        for case, caption, facts in rows:
            page.write(caption)
            page.write(facts, color=QUIET)
            page.skip(GAP)
            page.show(case)
            page.skip(2 * GAP)
        page.write(note, color=QUIET)
    return page.figure


def _together(facts: Sequence[str]) -> str:
    """Facts in one text, which may break only after the dots between them."""
    space = "\N{NO-BREAK SPACE}"
    return f"{space}· ".join(fact.replace(" ", space) for fact in facts)


def wrapped(text: str, weight: str = "normal") -> list[str]:
    """The text in lines that fit into the figure; what exceeds `LINES` is replaced by an ellipsis."""
    font = FontProperties(family=STYLE["font.family"], size=STYLE["font.size"], weight=weight)
    room = 72 * (COLUMN - 2 * MARGIN)
    for characters in range(WIDEST, 0, -2):
        lines = textwrap.wrap(text, characters, max_lines=LINES, placeholder=" …")
        if all(text_to_path.get_text_width_height_descent(line, font, False)[0] <= room for line in lines):
            break
    return lines


class _Page:
    """A figure that is filled from top to bottom."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure, self.height, self.y = figure, height, MARGIN

    def skip(self, inches: float) -> None:
        self.y += inches

    def write(self, lines: Sequence[str], **style: Any) -> None:
        for line in lines:
            place = (MARGIN / COLUMN, 1 - (self.y + LINE / 2) / self.height)
            self.figure.text(*place, line, va="center", parse_math=False, **style)
            self.skip(LINE)

    def show(self, case: Case) -> None:
        _framed(self._axes(MARGIN), case.image, RIGHT)
        middle = 1 - (self.y + SIDE / 2) / self.height
        self.figure.text((MARGIN + SIDE + FIRST) / 2 / COLUMN, middle, "→", ha="center", va="center")
        for place, (picture, right) in enumerate(case.top):
            axes = self._axes(FIRST + place * (SIDE + GAP))
            _framed(axes, picture, RIGHT if right else WRONG)
            if right:
                axes.text(0.93, 0.08, "✓", ha="right", va="bottom", color="white", bbox=BADGE, transform=axes.transAxes)
        self.skip(SIDE)

    def _axes(self, x: float) -> Axes:
        bottom = self.height - self.y - SIDE
        return self.figure.add_axes((x / COLUMN, bottom / self.height, SIDE / COLUMN, SIDE / self.height))


def _framed(axes: Axes, picture: Image.Image, frame: dict[str, Any]) -> None:
    axes.imshow(picture, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(**frame)
