"""An experiment: the complete content of a config file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cmer.config.archives import ArchiveOptions
from cmer.config.backbones import Backbone, parse_backbone
from cmer.config.base import Model, Name, Seed, Several, require_known, require_plain, require_unique, validate
from cmer.config.captioners import Captioner, parse_captioner
from cmer.config.datasets import Dataset
from cmer.config.folders import AMBIGUOUS, Results, is_within
from cmer.config.protocols import protocols_of, require_same_queries
from cmer.config.reading import read_settings
from cmer.config.reranking import AnyReranker, RerankerOptions, parse_reranker
from cmer.config.runs import Run, RunDefaults, RunEntry, RunSpec, expand_runs
from cmer.config.shown import Figure, Table
from cmer.config.training import ProfileOptions, Training
from cmer.registry import FIGURES, TABLES, Registry

PARSERS = {"backbones": parse_backbone, "captioners": parse_captioner, "rerankers": parse_reranker}
"""Functions that parse an entry of a section with the model of its `kind`."""


T = TypeVar("T")
Many = Annotated[dict[Name, T], Field(max_length=1000)]
"""Entries by name; more take too long to check and to plan."""


class Config(Model):
    """Everything an experiment depends on."""

    results: Results = Field(
        default="results",
        description="folder of this experiment's results; environment variables are expanded",
    )
    seeds: Annotated[Several[Seed], Field(max_length=1000)] = Field(
        default=[2022],
        description="seeds, with one training per seed; tables give the mean and standard deviation over them",
    )
    datasets: Many[Dataset] = Field(default={}, description="captioned images of the runs, by name")
    backbones: Many[Backbone] = Field(default={}, description="frozen towers, by the name used in runs")
    captioners: Many[Captioner] = Field(
        default={}, description="what writes rich texts of images, by the name used in the options of runs"
    )
    training: Training = Field(
        default=Training(), description="training settings of every run; a run's own `training` overrides single keys"
    )
    profile: ProfileOptions = ProfileOptions()
    run_defaults: RunDefaults = RunDefaults()
    runs: dict[Name, RunEntry] = Field(
        default={}, description="what is trained and evaluated, by name; may be left out beside `archives`"
    )
    rerankers: Many[AnyReranker] = Field(
        default={}, description="rerankers by name; each gives a row {run}.{name} for each of its runs"
    )
    tables: Many[Table] = Field(default={}, description="tables by the name of their file")
    figures: Many[Figure] = Field(default={}, description="figures by the name of their file")
    archives: Many[ArchiveOptions] = Field(
        default={}, description="folders of images that are embedded in shards for `cmer search`, by name"
    )

    @field_validator("backbones", "captioners", "rerankers", mode="before")
    @classmethod
    def _parse_each(cls, data: Any, info: ValidationInfo) -> Any:
        """Parse each entry here, so that errors can give its name."""
        if not isinstance(data, dict):
            return data
        parsed, mistakes = {}, []
        for name, value in data.items():
            try:
                parsed[name] = PARSERS[str(info.field_name)](value, f"{info.field_name}.{name}")
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return parsed

    @model_validator(mode="before")
    @classmethod
    def _kind_is_the_name(cls, data: Any) -> Any:
        """Use the name of a table or figure as its kind unless it states one."""
        if not isinstance(data, dict):
            return data
        filled = dict(data)
        for section in ("tables", "figures"):
            if isinstance(data.get(section), dict):
                filled[section] = {
                    name: {"kind": name} | entry if isinstance(entry, dict) else entry
                    for name, entry in data[section].items()
                }
        return filled

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.runs and not self.archives:
            raise ValueError("needs `runs`, to train and evaluate them, or `archives`, to embed folders of images")
        return self

    @model_validator(mode="after")
    def _files_have_one_writer(self) -> Self:
        for section, ambiguous in AMBIGUOUS.items():
            for name in getattr(self, section):
                if ambiguous.fullmatch(name):
                    raise ValueError(f"{section}.{name}: other files of the workflow have this name; choose another")
        for key, place in self._places():
            if is_within(place, self.results):
                raise ValueError(f"{key}: {place} is inside `results`, where the workflow deletes and overwrites files")
        return self

    def _places(self) -> Iterator[tuple[str, str]]:
        """The user's own files and folders that the experiment reads, with the key that names them."""
        for section in ("datasets", "backbones", "captioners", "archives"):
            for name, entry in getattr(self, section).items():
                yield from ((f"{section}.{name}", place) for place in entry.places())
        for run in self.expanded:
            yield from ((f"runs.{run.name}.options", place) for place in run.options.places())

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for run in self.expanded:
            if run.options.rich:
                wanted = [run.options.rich.captioner]
                require_known(f"runs.{run.name}.options.captioner", wanted, list(self.captioners))
        for name, reranker in self.rerankers.items():
            self._check_reranker(f"rerankers.{name}", reranker)
        require_unique("runs", [run.name for run in [*self.expanded, *self.reranked]])
        require_known("profile.count_only", self.profile.count_only, list(self.backbones))
        for name, archive in self.archives.items():
            archive.require_run(f"archives.{name}", self.expanded)
        self._check_runs("profile.stored", self.profile.stored, self.expanded)
        for name, table in self.tables.items():
            _check_kind(f"tables.{name}.kind", table.kind, TABLES)
            self._check_runs(f"tables.{name}.runs", table.runs, [*self.expanded, *self.reranked])
            require_known(f"tables.{name}.datasets", table.datasets or [], list(self.datasets))
            measures = bool(table.datasets) or "metrics" in TABLES.get(table.kind).reads
            if measures and not self.rows(table.runs, table.datasets):
                named = ", ".join(table.datasets or []) or "a dataset"
                raise ValueError(f"tables.{name}: none of its runs uses {named}; add it to their `datasets`")
            if "metrics" in TABLES.get(table.kind).reads:
                self._check_protocols(f"tables.{name}.protocols", table)
        for name, figure in self.figures.items():
            _check_kind(f"figures.{name}.kind", figure.kind, FIGURES)
            self._check_runs(f"figures.{name}.runs", figure.runs, [*self.expanded, *self.reranked])
            require_known(f"figures.{name}.dataset", [figure.dataset] if figure.dataset else [], list(self.datasets))
            shown = [run for run, _ in self.rows(figure.runs, [self.dataset_of(name)])]
            if not shown:
                raise ValueError(f"figures.{name}: none of its runs uses {figure.dataset}; add it to their `datasets`")
            _check_figure(f"figures.{name}", figure, shown)
        return self

    def _check_protocols(self, where: str, table: Table) -> None:
        for run in self.matching(table.runs):
            if missing := [protocol for protocol in table.protocols if protocol not in protocols_of(run.options)]:
                raise ValueError(
                    f"{where}: {run.name} is not evaluated under {', '.join(missing)}, but under "
                    f"{', '.join(protocols_of(run.options))}; list these, or put the run into a table of its own"
                )

    def _check_reranker(self, where: str, reranker: RerankerOptions) -> None:
        runs, partner = self._trained(reranker.runs), reranker.partner_run
        if not reranker.runs:
            raise ValueError(f"{where}.runs: Field required")
        self._check_runs(f"{where}.runs", reranker.runs, self.expanded)
        for run in runs:
            try:
                reranker.require(run.options)
            except ValueError as error:
                raise ValueError(f"{where}: it cannot rerank {run.name}: {error}") from None
        if partner is None:
            return
        require_known(f"{where}.partner", [partner], [run.name for run in self.expanded])
        if partner in [run.name for run in runs]:
            raise ValueError(f"{where}.partner: {partner} is among its runs; name another run")
        if lacking := [run.name for run in runs if not set(run.datasets) <= set(self.run(partner).datasets)]:
            raise ValueError(f"{where}.partner: {partner} does not use all datasets of {', '.join(lacking)}")
        for run in runs:
            require_same_queries(f"{where}.partner", run, self.run(partner))

    def _check_runs(self, key: str, patterns: list[str], runs: Sequence[Run]) -> None:
        for pattern in patterns:
            if not _matching([pattern], runs):
                known = ", ".join(run.name for run in runs)
                raise ValueError(f"{key}: {pattern!r} matches no run; known are {known}")

    @cached_property
    def expanded(self) -> list[Run]:
        """All runs, one per backbone and per value of a sweep, in the config's order."""
        return expand_runs(self.runs, self.run_defaults, self.training, list(self.backbones), list(self.datasets))

    @cached_property
    def reranked(self) -> list[Run]:
        """The runs under the name and with the scores of each of their rerankers; they train nothing."""
        return [
            run.model_copy(update={"name": f"{run.name}.{name}", "reranker": reranker})
            for name, reranker in self.rerankers.items()
            for run in self._trained(reranker.runs)
        ]

    def run(self, name: str) -> Run:
        """The run with this name."""
        return next(run for run in self.expanded if run.name == name)

    def matching(self, patterns: list[str]) -> list[Run]:
        """The runs, reranked ones included, whose names match a pattern, each once, in the order of the patterns."""
        return _matching(patterns, [*self.expanded, *self.reranked])

    def _trained(self, patterns: list[str]) -> list[Run]:
        return _matching(patterns, self.expanded)

    def profiled_from_store(self, run: Run) -> bool:
        """Whether the profile of a run reads stored features."""
        return bool(_matching(self.profile.stored, [run]))

    def rows(self, patterns: list[str], datasets: list[str] | None) -> list[tuple[Run, str]]:
        """Pairs of a run and one of its datasets, grouped by dataset; None: all datasets."""
        runs = self.matching(patterns)
        names = list(self.datasets) if datasets is None else datasets
        return [(run, dataset) for dataset in names for run in runs if dataset in run.datasets]

    def dataset_of(self, figure: str) -> str:
        """The dataset of a figure.

        Raises:
            ValueError: the figure names no dataset, and its runs do not use exactly one.
        """
        entry = self.figures[figure]
        used = [entry.dataset] if entry.dataset else sorted({name for _, name in self.rows(entry.runs, None)})
        if len(used) != 1:
            raise ValueError(f"figures.{figure}.dataset: its runs use {', '.join(used) or 'no dataset'}; name one")
        return used[0]

    def spec(self, run: str, dataset: str, seed: int) -> RunSpec:
        """The settings that this training reads, and no others."""
        row = self.run(run)
        return RunSpec(
            run=run,
            dataset=dataset,
            seed=seed,
            backbone=self.backbones[row.backbone] if row.backbone else None,
            method=row.method,
            options=row.options,
            captioner=self.captioners[row.options.rich.captioner] if row.options.rich else None,
            training=row.training,
            source=self.datasets[dataset] if row.training.inputs == "online" else None,
        )


def _matching(patterns: list[str], runs: Sequence[Run]) -> list[Run]:
    found = [run for pattern in patterns for run in runs if fnmatchcase(run.name, pattern)]
    return list({run.name: run for run in found}.values())


def _check_kind(key: str, kind: str, registry: Registry[Any]) -> None:
    try:
        registry.check(kind)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_figure(key: str, figure: Figure, runs: Sequence[Run]) -> None:
    try:
        FIGURES.get(figure.kind).require(figure, runs)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def parse(data: Mapping[str, Any], what: str = "config") -> Config:
    """Validate a mapping read from YAML; `what` names it in errors.

    Raises:
        ConfigError: a key is invalid; the message has one sentence per invalid key.
    """
    require_plain(data, what)
    return validate(Config, data, what)


def read(files: Sequence[Path | str], entries: Sequence[str] = ()) -> Config:
    """Read the experiment of config files; see `cmer.config.reading`.

    Args:
        files: the config files; later ones override earlier ones, key by key.
        entries: `key=value` with a value in YAML, which override the files.

    Raises:
        UserError: a file cannot be read, or is not YAML; the message names file and line.
        ConfigError: a key is invalid; the message has one sentence per invalid key.
    """
    return parse(read_settings(files, entries), ", ".join(map(str, files)) or "config")
