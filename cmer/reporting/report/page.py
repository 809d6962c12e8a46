"""The report as one HTML page that contains everything it shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cmer.data.frames import TABLE, read_frame
from cmer.data.urls import data_url
from cmer.io import read_text
from cmer.provenance import versions
from cmer.registry import FIGURES, TABLES, Registry
from cmer.reporting.metrics import RECALLS, read_metrics
from cmer.reporting.record import read_calls
from cmer.reporting.report.graph import HEIGHT, WIDTH, graph
from cmer.reporting.report.outcome import outcomes
from cmer.reporting.report.pictures import Pictures
from cmer.reporting.report.runs import run_page
from cmer.reporting.report.spec import ReportSpec, Shown
from cmer.reporting.report.statistics import statistics
from cmer.reporting.report.tables import HEADINGS, View, view
from cmer.reporting.style import COLUMN

TEMPLATES = Path(__file__).with_name("templates")
MOST_VALUES = 200
"""Rows of a figure's values that the page has; a map of captions has thousands."""


@dataclass(frozen=True)
class Drawing:
    """A figure on the page.

    Attributes:
        name: its anchor.
        title: its caption.
        url: its content.
        inches: its width in print.
        values: its first values as a table.
        more: number of further values, which its CSV has.
    """

    name: str
    title: str
    url: str
    inches: float
    values: View
    more: int

    @property
    def wide(self) -> bool:
        """Whether it is wider than a printed column."""
        return self.inches > COLUMN


def render(spec: ReportSpec, results: Path, logs: Path) -> str:
    """The page.

    Args:
        spec: what it shows.
        results: folder of the experiment's results.
        logs: folder of the records of its commands.

    Raises:
        UserError: a file is missing or damaged.
    """
    links = {(run.name, run.dataset_title): run.anchor for run in spec.runs} | {
        (run.name, ""): run.anchor for run in reversed(spec.runs)
    }
    pictures = {name: Pictures.read(name, options, results / f"data/{name}") for name, options in spec.datasets.items()}
    environment = Environment(
        loader=PackageLoader("cmer.reporting.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    logged = read_calls(logs)
    phases = statistics(logs, logged)
    files = [results / f"metrics/{run.place}/seed{seed}.json" for run in spec.runs for seed in spec.seeds]
    metrics = read_metrics(files)
    pages = [run_page(run, spec.seeds, metrics, results, pictures[run.dataset], logged) for run in spec.runs]
    return environment.get_template("report.html").render(
        title=f"Retrieval on {' and '.join(dict.fromkeys(run.dataset_title for run in spec.runs)) or 'no dataset'}",
        folder=spec.folder,
        outcomes=outcomes(pages),
        tables=[
            view(shown.name, _title(TABLES, shown), read_frame(results / f"{shown.name}.csv", TABLE), links)
            for shown in spec.tables
        ],
        drawings=[_drawing(shown, results, links) for shown in spec.figures],
        pages=pages,
        phases=phases,
        graph=graph(phases),
        box=(WIDTH, HEIGHT),
        versions=versions(),
        headings={name: HEADINGS[name] for name in RECALLS},
        pictures={key: url for one in pictures.values() for key, url in one.made.items()},
        style=Markup(read_text(TEMPLATES / "style.css")),
        script=Markup(read_text(TEMPLATES / "report.js")),
    )


def _drawing(shown: Shown, results: Path, links: dict[tuple[str, str], str]) -> Drawing:
    file, title = results / f"figures/{shown.name}.svg", _title(FIGURES, shown)
    values, content = read_frame(file.with_suffix(".csv"), TABLE), read_text(file)
    width = re.search(r'<svg [^>]*?\bwidth="([\d.]+)pt"', content)
    return Drawing(
        name=shown.name,
        title=title,
        url=data_url(content.encode(), "image/svg+xml"),
        inches=float(width[1]) / 72 if width else COLUMN,
        values=view(shown.name, title, values.head(MOST_VALUES), links),
        more=max(len(values) - MOST_VALUES, 0),
    )


def _title(registry: Registry[type], shown: Shown) -> str:
    """What a table or figure shows: the first line of its docstring."""
    return (registry.get(shown.kind).__doc__ or shown.name).partition("\n")[0].rstrip(".")
