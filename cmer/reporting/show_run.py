"""A run on the terminal: its recalls, its training curve, and the queries that it answers best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from cmer.data.frames import IMAGES, read_frame
from cmer.errors import UserError
from cmer.progress import console, visible
from cmer.reporting.curves import Curve, read_curve
from cmer.reporting.measured import Measured, number, summarise
from cmer.reporting.metrics import RECALLS, TableRun, read_metrics
from cmer.reporting.queries import Shown, read_queries, readable

BARS = "▁▂▃▄▅▆▇█"
QUERIES_SHOWN = 5


def show_run(folder: Path) -> None:
    """Print a run on a dataset.

    Args:
        folder: folder of its metrics, `{results}/metrics/{dataset}/{run}`.

    Raises:
        UserError: the folder has no metrics, or a file is damaged.
    """
    files = sorted(file for file in folder.glob("seed*.json") if file.stem.removeprefix("seed").isdigit())
    if not files:
        raise UserError(
            f"{folder} has no metrics of a run, seed*.json; give a folder such as results/metrics/demo/lite.cmer"
        )
    metrics = read_metrics(files)
    results, (dataset, name) = folder.resolve().parents[2], folder.resolve().parts[-2:]
    seeds = [seed for _, _, seed in metrics]
    run = _run(dataset, name, next(iter(metrics.values()))["record"]["spec"])
    protocols = list(next(iter(metrics.values()))["protocols"])
    terminal = console()
    terminal.print(Text(visible(f"{name} on {dataset}"), style="bold"), soft_wrap=True)
    terminal.print(_recalls([summarise(metrics, run, protocol, seeds) for protocol in protocols]))
    terminal.print()
    for seed in seeds:
        curve = results / f"curves/{dataset}/{name}/seed{seed}.jsonl"
        if curve.is_file():
            terminal.print(_curve(f"seed{seed}", read_curve(curve)))
    found = read_queries(metrics[name, dataset, seeds[0]])
    names = _names(read_frame(results / f"data/{dataset}/images.csv", IMAGES))
    for title, group in (("Best", found.best), ("Worst", [*found.worst, *found.near[::-1]])):
        if group:
            terminal.print(Text(f"\n{title} queries, label protocol {found.protocol}, seed{seeds[0]}", style="bold"))
            terminal.print(_answers(group[:QUERIES_SHOWN], names))


def _run(dataset: str, name: str, spec: Mapping[str, Any]) -> TableRun:
    settings = {"method": spec["method"], "options": spec["options"]}
    return TableRun.model_validate(settings | {"name": name, "dataset": dataset, "backbone_printed": ""})


def _recalls(protocols: Sequence[Measured]) -> Table:
    """Means over seeds, percent; mR with its standard deviation."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    view.add_column("protocol")
    for name in (*RECALLS, "mR"):
        view.add_column(name.replace("_", " "), justify="right")
    for row in protocols:
        spread = "" if row.mr_std is None else f" ± {number(row.mr_std)}"
        view.add_row(row.protocol, *(number(row.recalls[name]) for name in RECALLS), number(row.mr) + spread)
    return view


def _curve(seed: str, curve: Curve) -> Text:
    measured = [entry["val_mr"] for entry in curve if "val_mr" in entry]
    low, high = min(measured), max(measured)
    bars = "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in measured)
    return Text(f"{seed}: validation mR {measured[0]:.1f} {bars} {measured[-1]:.1f}, best {high:.1f}")


def _names(images: pd.DataFrame) -> list[str]:
    """What each image is called, by its id: its file, and its scene label where the file's name does not say it."""
    rows = images[["file", "label"]].itertuples(index=False, name=None)
    return [file if label.replace(" ", "") in file else f"{file} ({label})" for file, label in rows]


def _answers(group: Sequence[Shown], names: Sequence[str]) -> Table:
    """The queries with their image and its scene's number of images.

    Unless it is always the query's own, also the image ranked first, and the BLEU of the query against its captions.
    """
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    view.add_column("rank", justify="right")
    missed = any(query.bleu is not None for query in group)
    for name in ("query", "its image", *["ranked first"] * missed):
        view.add_column(name, overflow="fold")
    for name in ("scene size", *["BLEU"] * missed):
        view.add_column(name, justify="right")
    for query in group:
        words = (readable(query.caption), names[query.image_id], *[names[query.top[0]]] * missed)
        bleu = "" if query.bleu is None else f"{query.bleu:.2f}"
        numbers = (f"{query.scene_images:,}" if query.scene_images else "", *[bleu] * missed)
        view.add_row(f"{query.rank:g}", *(Text(visible(word)) for word in words), *numbers)
    return view
