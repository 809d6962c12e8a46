"""Measured runs, summarised over their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import pandas as pd

from cmer.errors import UserError
from cmer.reporting.metrics import RECALLS, Metrics, TableRun, of_run
from cmer.reporting.naming import differences
from cmer.retrieval.evaluate import RanksFile

BUDGET = ("train_images", "epochs", "pairs_seen")
NOTES = {
    "oracle": "uses test labels",
    "shuffled": "control: a wrong label in every query",
    "rich": "queries are rich texts of the target images, not captions",
}
TRANSDUCTIVE = "transductive: every query is scored with all test queries at hand"


@dataclass(frozen=True)
class Measured:
    """A run under one label protocol: means over seeds.

    Attributes:
        recalls: the six recalls and their mean `mr`, in percent.
        mr_std: sample standard deviation over seeds; None for one seed.
        interval: 95 % bootstrap interval of mR over test images, its bounds averaged over seeds.
        parameters: number of trained parameters.
        images: number of train images that training drew from.
        epochs: number of epochs over these images.
        ranks: files with the ranks of every query, one per seed.
        forwards: number of pairs that the test scored one by one; 0 for embeddings.
        pairs: number of pairs seen in training, averaged over seeds; 0 where nothing trains, and images and epochs are
            meaningless.
    """

    run: TableRun
    protocol: str
    recalls: dict[str, float]
    mr_std: float | None
    interval: tuple[float, float]
    seeds: tuple[int, ...]
    parameters: int
    images: int
    epochs: int
    forwards: int
    pairs: int
    ranks: tuple[RanksFile, ...]

    @property
    def mr(self) -> float:
        """Mean recall, percent."""
        return self.recalls["mr"]

    def cells(self) -> dict[str, str]:
        """Cells that a measured row has in every table; recalls in percent with two decimals."""
        reranker = self.run.reranker
        notes = [NOTES[self.protocol]] if self.protocol in NOTES else []
        notes += [TRANSDUCTIVE] if reranker and reranker.transductive else []
        notes += [f"scores {self.forwards:,} pairs one by one"] if self.forwards else []
        budget = (self.images, self.epochs, self.pairs) if self.pairs else (0, 0, 0)
        return {
            "run": self.run.name,
            "options": ", ".join([*differences(self.run.options), *([reranker.title] if reranker else [])]),
            "dataset": self.run.dataset_title,
            "backbone": self.run.backbone_printed,
            "label_protocol": self.protocol,
            "params_m": number(self.parameters / 1e6),
            "mr": number(self.mr),
            "mr_std": "one seed" if self.mr_std is None else number(self.mr_std),
            "mr_ci_low": number(self.interval[0]),
            "mr_ci_high": number(self.interval[1]),
            "seeds": " ".join(map(str, self.seeds)),
            **dict(zip(BUDGET, map(str, budget), strict=True)),
            "note": "; ".join(notes),
        }


def number(value: float) -> str:
    """`value` with two decimals."""
    return f"{value:.2f}"


def formatted(points: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A table as text, with two decimals in these columns."""
    return points.assign(**{name: points[name].map(number) for name in columns}).astype(str)


def signed(value: float) -> str:
    """`value` with its sign and two decimals."""
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no "-0.00"


def summarise(metrics: Metrics, run: TableRun, protocol: str, seeds: Sequence[int]) -> Measured:
    """Means and spread of a run over seeds.

    Raises:
        UserError: a seed's metrics are missing, or lack the protocol.
    """
    found = of_run(metrics, run, seeds)
    rows = [one["protocols"].get(protocol) for one in found]
    if None in rows:
        raise UserError(
            f"{run.dataset}/{run.name} was not evaluated under label protocol {protocol!r}; embed it again, "
            "or remove the protocol from the table if the run's method is not tested under it"
        )
    records = [one["record"] for one in found]
    return Measured(
        run=run,
        protocol=protocol,
        recalls={name: fmean(row[name] for row in rows) for name in (*RECALLS, "mr")},
        mr_std=stdev(row["mr"] for row in rows) if len(rows) > 1 else None,
        interval=(fmean(row["mr_interval"][0] for row in rows), fmean(row["mr_interval"][1] for row in rows)),
        seeds=tuple(seeds),
        parameters=records[0]["trainable_parameters"],
        images=records[0]["train_images"],
        epochs=records[0]["epochs"],
        forwards=records[0].get("embedding", {}).get("pair_forwards", {}).get(protocol, 0),
        pairs=round(fmean(record["images_seen"] for record in records)),
        ranks=tuple(one["ranks"] for one in found),
    )
