"""Commands that evaluate and report: evaluate, table, figure, show, record, controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmer.cli.data import Folder, Record
from cmer.cli.files import Reads, Writes
from cmer.config.base import validate_json
from cmer.errors import UserError
from cmer.io import atomic, regular_size, sha256, write_json, write_sealed, write_text
from cmer.progress import console
from cmer.provenance import code_digest, recorded, versions

if TYPE_CHECKING:
    from rich.table import Table

    from cmer.config.datasets import LabelRule
    from cmer.retrieval.reranking import Fitted

app = typer.Typer(no_args_is_help=True)
LARGEST_TABLE = 2**26
"""Maximum size in bytes of a file that `cmer show` prints."""
Metrics = Annotated[
    list[Path] | None,
    typer.Option(help="Metrics JSON of a run and seed, its ranks beside it; repeatable."),
    Reads(("", ".ranks.csv")),
]
Efficiency = Annotated[
    list[Path] | None, typer.Option(help="Profile JSON of a backbone (cmer profile); repeatable."), Reads()
]


@app.command()
def evaluate(
    embeddings: Annotated[
        Path, typer.Option(help="Embeddings or pair scores of the test split (cmer embed)."), Reads()
    ],
    folder: Folder,
    queries: Annotated[Path, typer.Option(help="CSV of the test captions (cmer augment)."), Reads()],
    out: Annotated[Path, typer.Option(help="JSON file for the metrics."), Writes()],
    ranks: Annotated[
        Path, typer.Option(help="CSV file for the rank of every query; tables read {metrics}.ranks.csv."), Writes()
    ],
    mr: Annotated[
        Path, typer.Option(help="JSON file for the mR of every label protocol, for `dvc metrics show`."), Writes()
    ],
    shown: Annotated[
        Path,
        typer.Option(
            help="JSON file for the queries that are answered best, nearly and worst; reports read "
            "{metrics}.queries.json."
        ),
        Writes(),
    ],
    rerank: Annotated[
        str | None, typer.Option(help="Name and reranker as JSON; its setting is chosen on the bank.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Bank of the run (cmer bank), for a reranker."), Reads()] = None,
    partner: Annotated[
        Path | None, typer.Option(help="Embeddings of a reranker's partner run (cmer embed)."), Reads()
    ] = None,
    partner_bank: Annotated[
        Path | None, typer.Option(help="Bank of a reranker's partner run (cmer bank)."), Reads()
    ] = None,
    grid: Annotated[
        Path | None, typer.Option(help="CSV file for a reranker's settings with their validation mR."), Writes()
    ] = None,
    record: Record = None,
) -> None:
    """Score the test split: recall at 1, 5 and 10 in both directions, mR and its interval, per label protocol.

    Ties count with their expected outcome under random order. Only `oracle` and `shuffled` use test labels. With
    `--rerank`, the scores are reranked first, with the setting that has the best validation mR.
    """
    from cmer.data.frames import write_frame
    from cmer.retrieval import EVALUATION
    from cmer.retrieval.evaluate import evaluate as evaluate_file

    with recorded(record):
        if rerank is None and (bank or partner or partner_bank or grid):
            raise UserError("--bank, --partner, --partner-bank and --grid belong to --rerank; give it, or omit them")
        fitted = _fitted(rerank, embeddings, bank, partner, partner_bank) if rerank is not None else None
        metrics, table, answers = evaluate_file(embeddings, folder, queries, fitted)
        metrics["record"] |= {"evaluation": {"code": code_digest(*EVALUATION), "versions": versions()}}
        if fitted and grid:
            write_frame(grid, fitted.grid)
        write_frame(ranks, table)
        checksum = {"ranks": sha256(ranks)}
        write_sealed(shown, answers | checksum, "cmer evaluate")
        write_json(mr, {"mr": {protocol: found["mr"] for protocol, found in metrics["protocols"].items()}})
        write_sealed(out, metrics | checksum, "cmer evaluate")


def _fitted(spec: str, embeddings: Path, bank: Path | None, partner: Path | None, partner_bank: Path | None) -> Fitted:
    from cmer.retrieval.reranking import RerankSpec, fit

    if bank is None:
        raise UserError("--rerank chooses its setting on --bank; give the file that `cmer bank` wrote")
    return fit(validate_json(RerankSpec, spec, "--rerank"), embeddings, bank, partner, partner_bank)


@app.command()
def table(
    spec: Annotated[str, typer.Option(help="The table's kind, runs, label protocols and seeds as JSON.")],
    out: Annotated[Path, typer.Option(help="CSV file for the table."), Writes()],
    metrics: Metrics = None,
    efficiency: Efficiency = None,
    show: Annotated[bool, typer.Option("--show", help="Also print the table.")] = False,
    record: Record = None,
) -> None:
    """Write a table with the paper's printed rows and the measured rows.

    Differences are given only if dataset, backbone, system and label protocol are those of the printed row.
    """
    from cmer.data.frames import write_frame
    from cmer.reporting.base import Files, TableSpec, build_table
    from cmer.reporting.show import show as print_table

    with recorded(record):
        parsed = validate_json(TableSpec, spec, "--spec")
        result = build_table(parsed, Files(metrics or [], efficiency or []))
        write_frame(out, result)
    if show:
        print_table(result, out.stem)


@app.command()
def figure(
    spec: Annotated[str, typer.Option(help="The figure's kind, runs on their dataset, and seeds as JSON.")],
    out: Annotated[Path, typer.Option(help="PNG file for the figure."), Writes()],
    vector: Annotated[Path, typer.Option(help="SVG file for the figure."), Writes()],
    points: Annotated[Path, typer.Option(help="CSV file for the points in the figure."), Writes()],
    metrics: Metrics = None,
    efficiency: Efficiency = None,
    embeddings: Annotated[
        list[Path] | None, typer.Option(help="Embeddings of a run (cmer embed); repeatable."), Reads()
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The dataset's images.csv, for a figure that reads embeddings."), Reads()
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="CSV of the test captions, for a figure that reads embeddings."), Reads()
    ] = None,
    heat_maps: Annotated[
        list[Path] | None, typer.Option(help="Heat maps of a run (cmer heat-maps); repeatable."), Reads()
    ] = None,
    record: Record = None,
) -> None:
    """Draw a figure as pixels and as vectors, and write its points as a table."""
    from cmer.data.frames import write_frame
    from cmer.reporting.base import FigureSpec, Files, draw_figure
    from cmer.reporting.style import encoded

    with recorded(record):
        parsed = validate_json(FigureSpec, spec, "--spec")
        files = Files(metrics or [], efficiency or [], embeddings or [], images, queries, heat_maps or [])
        drawing, shown = draw_figure(parsed, files)
        write_frame(points, shown)
        for file, format in ((out, "png"), (vector, "svg")):
            with atomic(file) as temporary:
                temporary.write_bytes(encoded(drawing, format))


@app.command()
def report(
    spec: Annotated[str, typer.Option(help="Tables, figures, runs and datasets of the report as JSON.")],
    results: Annotated[Path, typer.Option(help="Folder of the experiment's results."), Reads(())],
    logs: Annotated[Path, typer.Option(help="Folder of the records of the experiment's commands."), Reads(())],
    out: Annotated[Path, typer.Option(help="HTML file for the report."), Writes()],
    record: Record = None,
) -> None:
    """Write one self-contained HTML page with all tables and figures of an experiment, and a page per run."""
    from cmer.reporting.report.page import render
    from cmer.reporting.report.spec import ReportSpec

    with recorded(record):
        write_text(out, render(validate_json(ReportSpec, spec, "--spec"), results, logs))


@app.command()
def show(
    file: Annotated[
        Path,
        typer.Argument(help="A results table (results/table1.csv), or a run (results/metrics/demo/lite.cmer)."),
        Reads(()),
    ],
    printed: Annotated[bool, typer.Option("--printed", help="Also print all printed rows of the paper.")] = False,
) -> None:
    """Print a results table, or a run.

    Of a table, the measured rows with the columns that fit the terminal; the paper's printed rows follow if their
    dataset and backbone are those of a measured row. Of a run, its recalls, its training curve, and the queries that it
    answers best and worst.
    """
    from cmer.data.frames import TABLE, read_frame
    from cmer.reporting.show import show as print_table
    from cmer.reporting.show_run import show_run

    if file.is_dir():
        return show_run(file)
    if regular_size(file) > LARGEST_TABLE or file.suffix != ".csv":
        raise UserError(
            f"{file} is not a .csv of at most {LARGEST_TABLE // 2**20} MiB; `cmer record` prints how a file was made"
        )
    print_table(read_frame(file, TABLE), str(file), printed)


@app.command()
def record(file: Annotated[Path, typer.Argument(help="Any file written by a stage."), Reads()]) -> None:
    """Print how a file was made: spec, seed, versions, commit, command, host and time.

    Spec, seed, code and versions are read from the file itself if its format includes a record, the rest from logs/.
    """
    from cmer.reporting.record import provenance
    from cmer.reporting.record import show as print_provenance

    print_provenance(file, provenance(file))


@app.command()
def controls(
    dataset_json: Annotated[
        Path, typer.Option(help="Annotation file in the published layout, dataset*.json."), Reads()
    ],
    lists: Annotated[
        Path | None,
        typer.Option(help="Folder of class lists (<class>.txt). Default: txtclasses_* beside the file, if it exists."),
        Reads(()),
    ] = None,
) -> None:
    """Print the recalls of a ranker that knows only the true scene label of every test image.

    Labels come from the class lists if there are any, otherwise from file-name prefixes. Test images without a label
    count as one class.
    """
    import numpy as np

    from cmer.data.annotations import read_annotations
    from cmer.data.labels import labels_of
    from cmer.retrieval.controls import label_only

    rule = _label_rule(dataset_json, lists)
    test = [entry for entry in read_annotations(dataset_json) if entry.split == "test" and entry.sentences]
    labels = labels_of(test, rule, dataset_json.parent)
    found = label_only(labels, np.repeat(np.arange(len(test)), [len(entry.sentences) for entry in test]))
    origin = f"the class lists in {rule.folder}" if rule.rule == "lists" else "file-name prefixes"
    named = len(set(labels) - {""})
    terminal = console()
    terminal.print(f"label_only on {len(test):,} test images; classes: {named}; without a label: {labels.count('')}")
    terminal.print(f"labels from {origin}", soft_wrap=True)
    terminal.print(_recall_table(found.as_dict()))


def _label_rule(dataset_json: Path, lists: Path | None) -> LabelRule:
    from cmer.config.datasets import ListLabels, PrefixLabels

    if lists is None:
        lists = next(iter(sorted(dataset_json.parent.glob("txtclasses_*/"))), None)
    elif not lists.is_dir():
        raise UserError(f"--lists {lists} is not a folder; give the folder of the <class>.txt files")
    return PrefixLabels() if lists is None else ListLabels(rule="lists", folder=str(lists.absolute()))


def _recall_table(values: dict[str, float]) -> Table:
    from rich.table import Table

    table = Table("", *("R@1", "R@5", "R@10", "mR"))
    for direction, title in (("t2i", "text to image"), ("i2t", "image to text")):
        mr = f"{values['mr']:.2f}" if direction == "i2t" else ""
        table.add_row(title, *(f"{values[f'{direction}_r{k}']:.2f}" for k in (1, 5, 10)), mr)
    return table
