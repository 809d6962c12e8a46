"""A run on the terminal: its recalls, its training curve, and the queries that it answers best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmer.data.frames import IMAGES, QUERIES, read_frame
from cmer.errors import UserError
from cmer.progress import console, visible
from cmer.reporting.curves import Curve, read_curve
from cmer.reporting.metrics import RECALLS, read_metrics
from cmer.reporting.queries import Query, select
from cmer.retrieval.scores import similarity

BARS = "▁▂▃▄▅▆▇█"
QUERIES_SHOWN = 5


def show_run(folder: Path) -> None:
    """Print a run on a dataset.

    Args:
        folder: folder of its metrics, `{results}/metrics/{dataset}/{run}`.

    Raises:
        UserError: the folder has no metrics, or a file is damaged.
    """
    files = sorted(folder.glob("seed*.json"))
    if not files:
        raise UserError(
            f"{folder} has no metrics of a run, seed*.json; give a folder such as results/metrics/demo/lite.cmer"
        )
    metrics = list(read_metrics(files).values())
    results, place = folder.resolve().parents[2], Path(*folder.resolve().parts[-2:])
    terminal = console()
    terminal.print(Text(visible(f"{place.name} on {place.parent}"), style="bold"), soft_wrap=True)
    terminal.print(_recalls([one["protocols"] for one in metrics]))
    for file in files:
        curve = results / "checkpoints" / place / f"{file.stem}.curve.jsonl"
        if curve.is_file():
            terminal.print(_curve(file.stem, read_curve(curve)))
    embeddings = results / "embeddings" / place / f"{files[0].stem}.safetensors"
    if embeddings.is_file():
        _print_queries(terminal, embeddings, next(iter(metrics[0]["protocols"])), results, place.parent.name)


def _print_queries(terminal: Console, embeddings: Path, protocol: str, results: Path, dataset: str) -> None:
    queries = read_frame(results / f"captions/{dataset}.queries.csv", QUERIES)
    if protocol not in queries:  # rich texts are no captions, and no file has them by row
        return
    images = read_frame(results / f"data/{dataset}/images.csv", IMAGES)
    test = images[images["split"] == "test"].reset_index(drop=True)
    owner = pd.Index(test["image_id"]).get_indexer(pd.Index(queries["image_id"]))
    found = select(similarity(embeddings, protocol), owner)
    for title, group in (("Best", found.best), ("Worst", [*found.worst, *found.near[::-1]])):
        heading = f"{title} queries, {protocol}, {embeddings.stem}"
        terminal.print(_answers(heading, group, queries[protocol].tolist(), test["file"].tolist()))


def _recalls(protocols: Sequence[Mapping[str, Mapping[str, Any]]]) -> Table:
    """Means over seeds, percent; mR with its standard deviation."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    view.add_column("protocol")
    for name in (*RECALLS, "mR"):
        view.add_column(name.replace("_", " "), justify="right")
    for protocol in protocols[0]:
        cells = [f"{fmean(one[protocol][name] for one in protocols):.2f}" for name in RECALLS]
        mrs = [one[protocol]["mr"] for one in protocols]
        view.add_row(protocol, *cells, f"{fmean(mrs):.2f}" + (f" ± {stdev(mrs):.2f}" if len(mrs) > 1 else ""))
    return view


def _curve(seed: str, curve: Curve) -> Text:
    measured = [entry["val_mr"] for entry in curve if "val_mr" in entry]
    low, high = min(measured), max(measured)
    bars = "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in measured)
    return Text(f"{seed}: validation mR {measured[0]:.1f} {bars} {measured[-1]:.1f}, best {high:.1f}")


def _answers(title: str, group: Sequence[Query], texts: Sequence[str], files: Sequence[str]) -> Table:
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=Text(title), title_justify="left")
    view.add_column("rank", justify="right")
    for name in ("query", "its image", "ranked first"):
        view.add_column(name, overflow="fold")
    for query in group[:QUERIES_SHOWN]:
        words = (texts[query.caption], files[query.image], files[query.top[0]])
        view.add_row(f"{query.rank:g}", *(Text(visible(word)) for word in words))
    return view
