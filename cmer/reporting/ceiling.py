"""The table of the text-to-text ceiling, from the annotations of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from cmer.config.base import require_distinct
from cmer.data.annotations import Entry, read_annotations
from cmer.errors import UserError
from cmer.reporting.measured import number
from cmer.reporting.metrics import RECALLS
from cmer.retrieval.ceiling import Captions, Matrix, Reduce, caption_scores, fit_fusion, recalls_of
from cmer.retrieval.text_encoders import text_encoder

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

REDUCED = {"max": "best caption of the image", "mean": "mean over the captions of the image"}
COLUMNS = ["encoder", "share_of_second", "reduce", "queries", "images", "captions", *RECALLS, "mr"]


def ceiling_table(annotations: Path, encoders: Sequence[str]) -> pd.DataFrame:
    """Recalls in percent by encoder, fusion of two encoders, reduction and choice of queries, as formatted cells.

    Args:
        annotations: annotation file in the published layout.
        encoders: names of `cmer.retrieval.text_encoders.text_encoder`.

    Raises:
        UserError: the annotations are invalid, an image has a single caption, or an encoder is unknown.
    """
    try:
        given = {name: text_encoder(name) for name in require_distinct(encoders)}
    except ValueError as error:
        raise UserError(f"--encoder: {error}") from None
    entries = [entry for entry in read_annotations(annotations) if any(entry.captions)]
    test = _captions([entry for entry in entries if entry.split == "test"])
    validation = _captions(_validation(entries))
    rows: list[dict[str, str]] = []
    for reduce in get_args(Reduce):
        scores = {
            name: [caption_scores(split, encoder, reduce) for split in (validation, test)]
            for name, encoder in given.items()
        }
        for name, (_, found) in scores.items():
            rows += _rows(found, test, {"encoder": name, "reduce": reduce})
        for one, two in combinations(given, 2):
            fusion = fit_fusion(scores[one][0], scores[two][0], validation)
            cells = {"encoder": f"{one} + {two}", "share_of_second": f"{fusion.share:g}", "reduce": reduce}
            rows += _rows(fusion.scores(scores[one][1], scores[two][1]), test, cells)
    return pd.DataFrame(rows, columns=COLUMNS).fillna("")


def _captions(entries: Sequence[Entry]) -> Captions:
    return Captions.of([[caption for caption in entry.captions if caption] for entry in entries])


def _validation(entries: Sequence[Entry]) -> list[Entry]:
    """The val split; without one, as many train images as there are test images, drawn with a fixed seed."""
    val = [entry for entry in entries if entry.split == "val"]
    if val:
        return val
    train = [entry for entry in entries if entry.split == "train"]
    count = min(len(train), sum(entry.split == "test" for entry in entries))
    return [train[row] for row in sorted(np.random.default_rng(0).permutation(len(train))[:count])]


def _rows(scores: Matrix, captions: Captions, cells: dict[str, str]) -> Iterator[dict[str, str]]:
    unrepeated = ~captions.repeats()
    everything = np.ones(len(captions.texts), bool)
    for queries, kept in (("all", everything), ("without repeats", unrepeated)):
        found = recalls_of(scores, captions, kept).as_dict()
        counts = {"images": len(set(captions.owner[kept])), "captions": int(kept.sum())}
        yield (
            cells
            | {"queries": queries}
            | {k: str(v) for k, v in counts.items()}
            | {name: number(value) for name, value in found.items()}
        )


def view(table: pd.DataFrame, title: str) -> Group:
    """The recalls for a terminal of 80 columns, with the share of captions that repeat another one of their image."""
    from rich.console import Group

    counts = table.groupby("queries")["captions"].first().astype(int)
    share = 100 * (1 - counts["without repeats"] / counts["all"])
    note = f"{share:.1f} % of the {counts['all']:,} captions are also another caption of their image."
    return Group(*(_view(table[table["reduce"] == name], f"{title}: {words}") for name, words in REDUCED.items()), note)


def _view(rows: pd.DataFrame, title: str) -> Table:
    from rich import box
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("encoder")
    shown.add_column("queries")
    for name in (*RECALLS, "mr"):
        shown.add_column(name.replace("_r", "\nR@").replace("mr", "mR"), justify="right")
    for row in rows.to_dict("records"):
        weight = f" ({row['share_of_second']})" if row["share_of_second"] else ""
        shown.add_row(f"{row['encoder']}{weight}", row["queries"], *(row[name] for name in (*RECALLS, "mr")))
    return shown
