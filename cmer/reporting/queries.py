"""Reader of the queries that a run answers best, nearly and worst, as `cmer evaluate` writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from cmer.config.base import validate
from cmer.errors import UserError
from cmer.io import read_sealed
from cmer.reporting.metrics import COMMAND
from cmer.retrieval.queries import NEAR

GROUPS = {
    "best": "Best queries: rank 1",
    "near": f"Near misses: rank 2 to {NEAR}",
    "worst": f"Worst queries: rank above {NEAR}",
}
"""Titles of the groups of queries."""


class Shown(BaseModel):
    """A query: its text, the rank of its image, the images ranked first, and what may explain the rank.

    Attributes:
        scene_images: number of test images of its scene class; 0 if its image has no label.
        bleu: of the caption against those of the image ranked first, 0 to 1; None if that is its own image.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    caption: str
    image_id: NonNegativeInt
    rank: Annotated[float, Field(ge=1)]
    top: Annotated[list[NonNegativeInt], Field(min_length=1)]
    tags: list[str]
    scene_images: NonNegativeInt
    bleu: Annotated[float, Field(ge=0, le=1)] | None

    def facts(self, label: str) -> list[str]:
        """The numbers that may explain the rank, as they are shown; `label` is the scene class of its image."""
        counted = f"{self.scene_images:,} {label} image{'s' * (self.scene_images != 1)}"
        compared = "" if self.bleu is None else f"BLEU {self.bleu:.2f}"
        return [fact for fact in (counted if label else "", compared) if fact]


class ShownQueries(BaseModel):
    """The queries of a run and seed under one label protocol; no group has any where queries are no captions.

    Attributes:
        ranks: checksum of the ranks that were written with them.
    """

    model_config = ConfigDict(strict=True)

    protocol: str
    ranks: str
    best: list[Shown] = []
    near: list[Shown] = []
    worst: list[Shown] = []


def readable(caption: str) -> str:
    """A caption without spaces before its full stops and commas, of which a line would otherwise begin with one."""
    return re.sub(r"\s+([.,])", r"\1", caption)


def read_queries(metrics: Mapping[str, Any]) -> ShownQueries:
    """The shown queries that lie beside the metrics of a run and seed.

    Args:
        metrics: an entry of `cmer.reporting.metrics.read_metrics`.

    Raises:
        UserError: the file is missing, damaged or from another evaluation.
    """
    file = metrics["file"].with_suffix(".queries.json")
    found = validate(ShownQueries, read_sealed(file, COMMAND), str(file))
    if found.ranks != metrics["ranks"].sha256:
        raise UserError(f"{file} was not written with the metrics beside it; run `cmer evaluate` again")
    return found
