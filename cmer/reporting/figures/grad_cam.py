"""Where the score of a caption comes from in its image (Figure 5 of the CMER paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cmer.config.base import validate
from cmer.errors import UserError
from cmer.io import read_sealed
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COMMAND = "cmer heat-maps"
Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]


class Pair(BaseModel):
    """A pair as `cmer heat-maps` writes it: the picture as JPEG in base64, and a map by part of the method."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    caption: str
    image_id: int
    score: float
    picture: str
    maps: Annotated[dict[str, list[list[Share]]], Field(min_length=1)]
    shuffled: dict[str, Correlation]

    @model_validator(mode="after")
    def _maps_are_square(self) -> Self:
        if self.maps.keys() != self.shuffled.keys():
            raise ValueError("maps and their correlations are of different parts")
        if any(len(row) != len(rows) for rows in self.maps.values() for row in rows):
            raise ValueError("a map is not square")
        return self


class _Spec(BaseModel):
    run: str
    dataset: str


class _Record(BaseModel):
    spec: _Spec


class HeatMaps(BaseModel):
    """The maps of a run."""

    pairs: Annotated[list[Pair], Field(min_length=1)]
    record: _Record


@FIGURES.register("grad_cam")
class GradCam(Figure):
    """Grad-CAM: where in its image the score of a caption comes from, by run and part of the method.

    Under each map is its rank correlation with maps of the same method after its weights were shuffled: near zero, the
    map shows what was learned; near one, the image alone. A map is empty where no patch adds to the score.
    """

    reads = ("heat_maps",)
    settings = ("queries",)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.maps import draw  # planning has no need of matplotlib

        found = read_heat_maps(files.heat_maps)
        missing = [run.name for run in spec.runs if (run.name, run.dataset) not in found]
        if missing:
            raise UserError(f"the figure needs heat maps of {', '.join(missing)}; run `{COMMAND}` for them")
        shown = {run.name: found[run.name, run.dataset] for run in spec.runs}
        captions = {run: [pair.caption for pair in pairs] for run, pairs in shown.items()}
        if any(each != captions[spec.runs[0].name] for each in captions.values()):
            raise UserError(f"the heat maps are of different captions; run `{COMMAND}` again")
        return draw(shown), _table(shown)


def read_heat_maps(files: Sequence[Path]) -> dict[tuple[str, str], list[Pair]]:
    """Pairs by run and dataset.

    Raises:
        UserError: a file is missing or damaged.
    """
    each = [validate(HeatMaps, read_sealed(file, COMMAND), str(file)) for file in files]
    return {(one.record.spec.run, one.record.spec.dataset): one.pairs for one in each}


def _table(shown: dict[str, list[Pair]]) -> pd.DataFrame:
    """A row per map: its score, where it is highest, and its correlation with those of shuffled weights."""
    rows = []
    for run, pairs in shown.items():
        for pair in pairs:
            for part, rows_of_map in pair.maps.items():
                grid = pd.DataFrame(rows_of_map)
                row, column = divmod(int(grid.to_numpy().argmax()), len(grid))
                rows.append(
                    {
                        "run": run,
                        "part": part,
                        "image_id": str(pair.image_id),
                        "caption": pair.caption,
                        "score": f"{pair.score:.3f}",
                        "highest": f"row {row + 1}, column {column + 1} of {len(grid)}",
                        "shuffled_correlation": f"{pair.shuffled[part]:.2f}",
                    }
                )
    return pd.DataFrame(rows)
