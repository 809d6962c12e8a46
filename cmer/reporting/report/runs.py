"""The page of a run: settings, recalls, training curve, scenes, and the queries that it answers best and worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from pydantic import BaseModel

from cmer.config.base import flat
from cmer.config.training import Training
from cmer.reporting.curves import read_curve
from cmer.reporting.measured import Measured, summarise
from cmer.reporting.metrics import Metrics, of_run
from cmer.reporting.naming import printed_name
from cmer.reporting.paper import printed_methods
from cmer.reporting.queries import GROUPS, Shown, ShownQueries, read_queries, readable
from cmer.reporting.record import Logged, facts, provenance
from cmer.reporting.report.curve import draw_curve
from cmer.reporting.report.pictures import Pictures
from cmer.reporting.report.spec import ReportRun
from cmer.retrieval.bootstrap import ImageHits, mr_interval
from cmer.retrieval.evaluate import RanksFile, read_hits


@dataclass(frozen=True)
class Picture:
    """A picture on a page: its key, its scene label, and whether it is the image that belongs to the query."""

    key: str
    label: str
    right: bool


@dataclass(frozen=True)
class Answer:
    """A query as a page shows it: its text, the rank of its image, that image, and the images ranked first.

    Attributes:
        facts: numbers that may explain the rank.
    """

    text: str
    rank: str
    facts: list[str]
    tags: list[str]
    target: Picture
    top: list[Picture]


@dataclass(frozen=True)
class Scene:
    """Mean recall of the test images of a scene class, percent, and of their captions, with its 95 % interval."""

    label: str
    images: int
    mr: float
    low: float
    high: float


@dataclass(frozen=True)
class RunPage:
    """What the page of a run shows.

    Attributes:
        settings: key, value and default of each setting that differs from its default.
        images: number of test images.
        recalls: means over seeds, one per label protocol.
        curve: data URL of the drawing; empty for a run without training.
        protocol: label protocol of scenes and queries.
        seed: seed of the queries, the first one.
        answers: queries by the title of their group.
        records: for each seed, how its metrics were made.
    """

    run: ReportRun
    title: str
    parameters: str
    settings: list[tuple[str, str, str]]
    images: int
    recalls: list[Measured]
    curve: str
    protocol: str
    seed: int
    scenes: list[Scene]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    records: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    @property
    def longest(self) -> int:
        """Recall at the end of the scenes' axis, percent: a multiple of ten that no interval exceeds."""
        return max(10, 10 * ceil(max(scene.high for scene in self.scenes) / 10))


def run_page(
    run: ReportRun,
    seeds: Sequence[int],
    metrics: Metrics,
    results: Path,
    pictures: Pictures,
    logged: Sequence[Logged],
) -> RunPage:
    """Gather what the page of a run shows.

    Args:
        run: the run.
        seeds: its seeds.
        metrics: metrics of all runs.
        results: folder of the experiment's results.
        pictures: pictures of the dataset.
        logged: records of the experiment's commands.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    found = of_run(metrics, run, seeds)
    protocols = list(found[0]["protocols"])
    protocol, seed = protocols[0], seeds[0]
    summaries = [summarise(metrics, run, name, seeds) for name in protocols]
    curves = [results / f"curves/{run.place}/seed{each}.jsonl" for each in seeds]
    curve = draw_curve([read_curve(file) for file in curves if file.is_file()])
    return RunPage(
        run=run,
        title=printed_name(run.method, run.options, printed_methods()),
        parameters=f"{summaries[0].parameters:,}",
        settings=[*_changed(run.options, "options."), *_changed(run.training, "training.", Training())],
        images=len(read_hits(summaries[0].ranks[0], protocol).ids),
        recalls=summaries,
        curve=curve,
        protocol=protocol,
        seed=seed,
        scenes=_scenes(summaries[0].ranks, protocol, pictures),
        answers=_answers(read_queries(found[0]), pictures),
        records=[
            (each, facts(one["file"], provenance(one["file"], logged))) for each, one in zip(seeds, found, strict=True)
        ],
    )


def _changed(given: BaseModel, prefix: str, default: BaseModel | None = None) -> Iterator[tuple[str, str, str]]:
    usual = flat((default or type(given)()).model_dump(mode="json"))
    for key, value in flat(given.model_dump(mode="json")).items():
        if usual.get(key) != value:
            yield f"{prefix}{key}", _shown(value), _shown(usual.get(key))


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _scenes(ranks: Sequence[RanksFile], protocol: str, pictures: Pictures) -> list[Scene]:
    """Recall of each scene class and its interval over images, averaged over seeds; none without labels."""
    labels = pictures.images["label"]
    hits = [read_hits(file, protocol) for file in ranks]
    owned = labels.loc[hits[0].ids].to_numpy(str)
    scenes = []
    for label in sorted(set(owned) - {""}):
        rows = np.flatnonzero(owned == label)
        found = [ImageHits(one.ids[rows], one.images[rows], one.texts[rows], one.captions[rows]) for one in hits]
        once = np.ones((1, len(rows)), np.int64)
        low, high = np.mean([mr_interval(one) for one in found], axis=0)
        mr = fmean(float(one.mr(once)[0]) for one in found)
        scenes.append(Scene(label, len(rows), mr, float(low), float(high)))
    return sorted(scenes, key=lambda scene: -scene.mr)


def _answers(found: ShownQueries, pictures: Pictures) -> dict[str, list[Answer]]:
    labels = pictures.images["label"]

    def answer(query: Shown) -> Answer:
        target, *top = (
            Picture(pictures.key(image), labels[image], image == query.image_id)
            for image in (query.image_id, *query.top)
        )
        facts = query.facts(labels[query.image_id])
        return Answer(readable(query.caption), f"{query.rank:g}", facts, query.tags, target, top)

    groups = zip(GROUPS.values(), (found.best, found.near, found.worst), strict=True)
    return {title: [answer(query) for query in group] for title, group in groups if group}
