"""Queries with the images that a run ranks first (Figures 7 and 8 of the CMER paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from cmer.config.protocols import protocols_of
from cmer.config.runs import Run
from cmer.config.shown import Figure as Entry
from cmer.data.frames import QUERIES
from cmer.data.targets import places_of
from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.queries import GROUPS, Shown
from cmer.retrieval.evaluate import read_test_split
from cmer.retrieval.queries import TOP, described, given, select
from cmer.retrieval.recall import ranks
from cmer.retrieval.scores import similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ROWS = 4
"""Maximum number of queries of a group that are shown, as many as in the paper's figures."""


@FIGURES.register("gallery")
class Gallery(Figure):
    """Queries with the images that a run ranks first: the right one in a green frame with a tick, others in dashed red.

    The queries are those of the first seed that are answered best, nearly or worst, as `cmer evaluate` chooses them, or
    captions of the config. They are ranked here, from the embeddings, so that any caption and protocol can be shown.
    """

    reads = ("embeddings", "pictures")  # published results have no embeddings, and therefore leave the figure out
    settings = ("group", "protocol", "queries")

    @classmethod
    def require(cls, entry: Entry, runs: Sequence[Run]) -> None:
        """See `Figure`."""
        super().require(entry, runs)
        if bool(entry.queries) == bool(entry.group):
            raise ValueError("a gallery needs either `group` (best, near or worst) or `queries`; give one of them")
        if len(runs) > 1:
            raise ValueError(f"a gallery shows one run, not {', '.join(run.name for run in runs)}; name one")
        run = runs[0]
        if run.reranker:
            raise ValueError(f"a gallery reads embeddings, but {run.name} is reranked; name a run without a reranker")
        allowed = [name for name in protocols_of(run.options) if name in QUERIES.columns]
        if entry.protocol not in allowed:
            remedy = f"choose {', '.join(allowed)}" if allowed else "name another run"
            raise ValueError(f"a gallery cannot show queries of {run.name} under {entry.protocol}; {remedy}")

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.gallery import PIXELS, Case, draw  # planning has no need of matplotlib
        from cmer.reporting.report.pictures import Pictures

        assert files.images is not None and spec.pictures is not None, "draw_figure and the spec require them"
        run = spec.runs[0]
        shown = _queries(spec, files)
        pictures = Pictures.read(run.dataset, spec.pictures, files.images.parent)
        labels = pictures.images["label"]
        small = {image: pictures.square(image, PIXELS) for query in shown for image in (query.image_id, *query.top)}
        cases = [
            Case(
                query.caption,
                [f"rank {query.rank:g} of {len(labels):,}", *query.facts(labels[query.image_id]), *query.tags],
                small[query.image_id],
                [(small[image], image == query.image_id) for image in query.top],
            )
            for query in shown
        ]
        title = GROUPS[spec.group] if spec.group else "Chosen captions"
        where = f"{run.name} on {run.dataset_title}, label protocol {spec.protocol}, seed {spec.seeds[0]}"
        return draw(cases, title, where), _table(spec, shown, labels)


def _queries(spec: FigureSpec, files: Files) -> list[Shown]:
    """The queries that are shown, ranked by the run's embeddings of the first seed."""
    assert files.images is not None and files.queries is not None, "draw_figure requires them"
    run, protocol = spec.runs[0], spec.protocol
    [file] = files.embeddings_of([run])
    images, captions = read_test_split(file, files.images.parent, files.queries)
    owner = images.index.get_indexer(pd.Index(captions["image_id"]))
    scores = similarity(file, protocol)
    found = ranks(scores, owner)[1]
    if spec.group is None:
        chosen = given(places_of(spec.queries, captions["none"].tolist()), scores, owner, found)
    elif not (chosen := getattr(select(scores, owner, found), spec.group)[:ROWS]):
        raise UserError(f"{run.name} has no query among the {GROUPS[spec.group].lower()}; choose another `group`")
    return [Shown.model_validate(query) for query in described(chosen, captions, protocol, images)]


def _table(spec: FigureSpec, shown: Sequence[Shown], labels: pd.Series[str]) -> pd.DataFrame:
    """A row per query, with the ids of the images ranked first."""
    return pd.DataFrame(
        {
            "run": spec.runs[0].name,
            "label_protocol": spec.protocol,
            "seed": str(spec.seeds[0]),
            "caption": query.caption,
            "image_id": str(query.image_id),
            "label": labels[query.image_id],
            "rank": f"{query.rank:g}",
            "scene_images": str(query.scene_images),
            "bleu": "" if query.bleu is None else f"{query.bleu:.4f}",
            "tags": ", ".join(query.tags),
            **{f"top_{place}": "" for place in range(1, TOP + 1)},
            **{f"top_{place}": str(image) for place, image in enumerate(query.top, 1)},
        }
        for query in shown
    )
