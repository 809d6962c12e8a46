"""The metrics of runs, as `cmer evaluate` writes them: validated when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, SerializeAsAny, model_validator

from cmer.config.base import Model, Name, validate
from cmer.config.methods import MethodOptions, parse_options, parse_options_field
from cmer.config.reranking import AnyReranker
from cmer.errors import UserError
from cmer.io import read_sealed
from cmer.retrieval.evaluate import RanksFile
from cmer.retrieval.recall import Recalls

COMMAND = "cmer evaluate"
RECALLS = tuple(field.name for field in fields(Recalls))
ROUNDING = 0.001
"""Maximum difference in points between mR and the mean of the six recalls, which are rounded to four decimals."""
Percent = Annotated[float, Field(ge=0, le=100)]
Metrics = Mapping[tuple[str, str, int], Mapping[str, Any]]


class TableRun(Model):
    """A run on a dataset, as named in the tables; tables of costs name no dataset."""

    name: Name
    dataset: Name = ""
    dataset_title: str = ""
    backbone_printed: str
    method: str
    options: SerializeAsAny[MethodOptions]
    reranker: AnyReranker | None = None

    @model_validator(mode="before")
    @classmethod
    def _parse_options_field(cls, data: Any) -> Any:
        return parse_options_field(data)


class _Read(BaseModel):
    """Part of a file that may contain more than is read here."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Recalls(_Read):
    i2t_r1: Percent
    i2t_r5: Percent
    i2t_r10: Percent
    t2i_r1: Percent
    t2i_r5: Percent
    t2i_r10: Percent
    mr: Percent

    @model_validator(mode="after")
    def _mr_is_the_mean(self) -> Self:
        six = fmean(getattr(self, name) for name in RECALLS)
        if abs(six - self.mr) > ROUNDING:
            raise ValueError(f"mr is {self.mr}, but the mean of the six recalls is {six:.4f}")
        return self


class _Protocol(_Recalls):
    mr_interval: Annotated[list[float], Field(min_length=2, max_length=2)]


class _Spec(_Read):
    run: str
    dataset: str
    seed: int
    method: str
    options: dict[str, Any]


class _Reranking(_Read):
    name: str
    chosen: dict[str, float]
    grid: list[dict[str, float]]


class _Embedding(_Read):
    pair_forwards: dict[str, NonNegativeInt] = {}


class _Record(_Read):
    spec: _Spec
    trainable_parameters: NonNegativeInt
    train_images: NonNegativeInt
    epochs: NonNegativeInt
    images_seen: NonNegativeInt
    embedding: _Embedding = _Embedding()
    reranking: _Reranking | None = None


class MetricsFile(_Read):
    """The part of a metrics file that tables and figures read."""

    protocols: Annotated[dict[str, _Protocol], Field(min_length=1)]
    controls: dict[str, _Recalls]
    record: _Record
    ranks: str


def read_metrics(files: Iterable[Path | str]) -> Metrics:
    """Metrics by (run, dataset, seed), each with the path of its ranks, which lie beside it.

    Raises:
        UserError: a file is missing or damaged, or was not written by `cmer evaluate`; or two are of the same run,
            dataset and seed.
    """
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for file in map(Path, files):
        metrics = read_sealed(file, COMMAND)
        record = validate(MetricsFile, metrics, str(file)).record
        run = record.reranking.name if record.reranking else record.spec.run
        key = run, record.spec.dataset, record.spec.seed
        if key in found:
            other = found[key]["file"]
            raise UserError(f"{other} and {file} are both of {key[1]}/{key[0]}/seed{key[2]}; give one of them")
        ranks = RanksFile(file.with_name(f"{file.stem}.ranks.csv"), metrics["ranks"])
        found[key] = metrics | {"ranks": ranks, "file": file}
    return found


def of_run(metrics: Metrics, run: TableRun, seeds: Sequence[int]) -> list[Mapping[str, Any]]:
    """The metrics of a run, one entry per seed.

    Raises:
        UserError: those of a seed are missing, or are of a run with another method or other options.
    """
    missing = [seed for seed in seeds if (run.name, run.dataset, seed) not in metrics]
    if missing:
        names = ", ".join(f"{run.dataset}/{run.name}/seed{seed}" for seed in missing)
        raise UserError(f"the table needs metrics that were not given: {names}; run `cmer evaluate` for them")
    found = [metrics[run.name, run.dataset, seed] for seed in seeds]
    for one in found:
        spec = one["record"]["spec"]
        if spec["method"] != run.method or parse_options(spec["method"], spec["options"]) != run.options:
            raise UserError(
                f"{one['file']} is of method {spec['method']} with other options than {run.name} here; run it again"
            )
    return found
