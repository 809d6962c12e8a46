"""The workflow as functions of a config: specs, code digests and input files of its steps. Imports no torch.

The spec of a step is JSON of exactly the settings that the step reads, so that Snakemake reruns a step if and only if
one of them changes. Names that are only printed belong to the specs of tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cmer import captioning, features, profiling, retrieval, training
from cmer.config.datasets import PublishedDataset
from cmer.config.reranking import RerankerOptions
from cmer.config.runs import Run, found_modules
from cmer.data.cards import card, fingerprint
from cmer.io import digest
from cmer.plan_inputs import RunInputs
from cmer.profiling.spec import ProfileSpec
from cmer.provenance import code_digest
from cmer.registry import FIGURES, RERANKERS, TABLES, Registry
from cmer.reporting.base import Reported
from cmer.reporting.paper import printed_file

OWN_TOWERS = "own_towers"
"""Takes the place of a backbone's name for the profile of methods that have their own towers."""

digest_code = cache(code_digest)
"""Snakemake evaluates it for every job; without the cache it takes half of the planning time."""


@dataclass(frozen=True)
class _Output:
    """A table or figure of the config: its registry, kind, runs and rows."""

    registry: Registry[Any]
    name: str
    runs: list[Run]
    rows: list[tuple[Run, str]]

    @property
    def kind(self) -> type[Reported]:
        """The kind of table or figure."""
        found: type[Reported] = self.registry.get(self.name)
        return found

    def code(self) -> str:
        """Digest of its code and of the printed values that it shows."""
        printed = [printed_file(number).read_text(encoding="utf-8") for number in self.kind.printed]
        return digest([digest_code(self.registry.module(self.name)), printed])


class Plan(RunInputs):
    """The workflow of a config."""

    # --- datasets and backbones ---------------------------------------------------------------------------------------

    @property
    def drawn(self) -> list[str]:
        """Datasets that the project generates."""
        return [name for name, data in self.config.datasets.items() if data.kind == "demo"]

    @property
    def fetched(self) -> list[str]:
        """Published datasets that are fetched, because the user gives no folder with them."""
        found = self.config.datasets.items()
        return [name for name, data in found if isinstance(data, PublishedDataset) and data.root is None]

    @property
    def used(self) -> list[str]:
        """Datasets that at least one run uses."""
        return [name for name in self.config.datasets if any(name in run.datasets for run in self.config.expanded)]

    @property
    def profiled(self) -> list[str]:
        """Backbones whose profile a table or figure needs; `OWN_TOWERS` for methods without a backbone."""
        return [name for name in [*self.config.backbones, OWN_TOWERS] if self._profiled_runs(name)]

    def _profiled_runs(self, backbone: str) -> list[Run]:
        outputs = [*map(self._table, self.config.tables), *map(self._figure, self.config.figures)]
        runs = {run.name: run for output in outputs if "efficiency" in output.kind.reads for run in output.runs}
        return [run for run in runs.values() if (run.backbone or OWN_TOWERS) == backbone]

    def _table(self, name: str) -> _Output:
        entry = self.config.tables[name]
        return self._output(TABLES, entry.kind, entry.runs, entry.datasets)

    def _figure(self, name: str) -> _Output:
        entry = self.config.figures[name]
        return self._output(FIGURES, entry.kind, entry.runs, [self.config.dataset_of(name)])

    def _output(self, registry: Registry[Any], kind: str, patterns: list[str], datasets: list[str] | None) -> _Output:
        runs, rows = self.config.matching(patterns), self.config.rows(patterns, datasets)
        if registry.get(kind).reads != ("metrics",):  # nothing else is there of a reranked run
            runs, rows = [run for run in runs if not run.reranker], [row for row in rows if not row[0].reranker]
        return _Output(registry, kind, runs, rows)

    # --- specs --------------------------------------------------------------------------------------------------------

    def data_spec(self, dataset: str) -> str:
        """Settings that preparing a dataset reads."""
        return as_json(self._data(dataset))

    def fetch_spec(self, dataset: str) -> str:
        """Settings that fetching a dataset reads."""
        data = self.config.datasets[dataset]
        return as_json(data.model_dump(include={"source", "sources"}) | {"title": dataset})

    def exclusion_spec(self, dataset: str) -> str:
        """Which train images of a dataset are excluded."""
        return as_json({"dataset": dataset, "exclude": self.config.datasets[dataset].exclude})

    def prompt_spec(self, dataset: str) -> str:
        """Settings that caption augmentation reads."""
        return as_json(self._data(dataset) | {"template": self.config.datasets[dataset].template})

    def template(self, dataset: str) -> str:
        """Prompt template of a dataset."""
        return self.config.datasets[dataset].template

    def features_spec(self, dataset: str, backbone: str) -> str:
        """Settings that feature extraction reads."""
        return as_json({"dataset": self._data(dataset), "backbone": self._backbone(backbone)})

    def caption_spec(self, dataset: str, captioner: str) -> str:
        """Settings that captioning reads."""
        return as_json({"dataset": self._data(dataset), "captioner": self.config.captioners[captioner].model_dump()})

    def run_spec(self, run: str, dataset: str, seed: str) -> str:
        """Settings that a training reads."""
        spec = self.config.spec(run, dataset, int(seed)).model_dump()
        backbone = self.config.run(run).backbone
        spec["backbone"] = self._backbone(backbone) if backbone else None
        spec["source"] = spec["source"] and self._data(dataset)
        return as_json(spec)

    def profile_spec(self, backbone: str) -> str:
        """What a profile measures: all profiled runs of a backbone, in one job, so that their times are comparable."""
        runs = self._profiled_runs(backbone)
        return as_json(
            {
                "name": backbone,
                "backbone": None if backbone == OWN_TOWERS else self._backbone(backbone),
                "rows": [_profiled(run) | {"stored": self.config.profiled_from_store(run)} for run in runs],
                "profile": self.config.profile.model_dump(exclude={"count_only", "stored"}),
                "count_only": backbone in self.config.profile.count_only,
            }
        )

    def table_spec(self, table: str) -> str:
        """Settings of a table. Only tables of metrics have seeds and label protocols."""
        output, entry = self._table(table), self.config.tables[table]
        if "metrics" not in output.kind.reads:
            runs = [self._tabled(run) for run in output.runs]
            return as_json({"kind": entry.kind, "runs": runs, "protocols": [], "seeds": []})
        runs = self._rows(output.rows)
        return as_json({"kind": entry.kind, "runs": runs, "protocols": entry.protocols, "seeds": self.config.seeds})

    def rerank_spec(self, run: str, reranker: str) -> str:
        """Settings that reranking a run reads."""
        return as_json({"name": f"{run}.{reranker}", "reranker": _settings(self.config.rerankers[reranker])})

    def _data(self, dataset: str) -> dict[str, Any]:
        return self.config.datasets[dataset].model_dump(exclude={"template", "exclude"}) | {"title": dataset}

    def _backbone(self, backbone: str) -> dict[str, Any]:
        return self.config.backbones[backbone].model_dump() | {"printed": backbone}

    def _rows(self, rows: Sequence[tuple[Run, str]]) -> list[dict[str, Any]]:
        return [
            self._tabled(run) | {"dataset": dataset, "dataset_title": self.config.datasets[dataset].title}
            for run, dataset in rows
        ]

    def _tabled(self, run: Run) -> dict[str, Any]:
        printed = self.config.backbones[run.backbone].printed if run.backbone else run.options.towers
        options = run.options.model_dump()
        tabled = {"name": run.name, "backbone_printed": printed, "method": run.method, "options": options}
        return tabled | ({"reranker": _settings(run.reranker)} if run.reranker else {})

    # --- code ---------------------------------------------------------------------------------------------------------

    def card_digest(self, dataset: str) -> str:
        """Digest of what fetching and preparing read of a published dataset's card; empty for other datasets."""
        data = self.config.datasets[dataset]
        if data.kind != "published":
            return ""
        layout = card(data.source).model_dump(mode="json", include={"annotations", "images", "labels"})
        return digest([layout, fingerprint(data.source).model_dump()])

    def extraction_code(self, backbone: str) -> str:
        """Code digest of feature extraction."""
        return digest_code(*features.MODULES, self.config.backbones[backbone].module())

    def captioning_code(self, captioner: str) -> str:
        """Code digest of captioning."""
        return digest_code(*captioning.MODULES, *self.config.captioners[captioner].modules())

    def training_code(self, run: str) -> str:
        """Code digest of a training."""
        return digest_code(*training.MODULES, *self._modules(run))

    def embedding_code(self, run: str) -> str:
        """Code digest of embedding a test split."""
        return digest_code(*retrieval.MODULES, *self._modules(run))

    def evaluation_code(self) -> str:
        """Code digest of evaluating a run."""
        return digest_code(*retrieval.EVALUATION)

    def reranking_code(self, reranker: str) -> str:
        """Code digest of evaluating reranked scores."""
        return digest_code(*retrieval.EVALUATION, RERANKERS.module(self.config.rerankers[reranker].kind))

    def profile_code(self, backbone: str) -> str:
        """Code digest of a profile."""
        return digest_code(*profiling.MODULES, *ProfileSpec.model_validate_json(self.profile_spec(backbone)).modules())

    def table_code(self, table: str) -> str:
        """Digest of a table's code and of the printed values that it shows."""
        return self._table(table).code()

    def figure_code(self, figure: str) -> str:
        """Digest of a figure's code and of the printed values that it shows."""
        return self._figure(figure).code()

    def _modules(self, run: str) -> list[str]:
        row = self.config.run(run)
        return found_modules(row.method, row.options, self.config.backbones[row.backbone] if row.backbone else None)

    # --- input files --------------------------------------------------------------------------------------------------

    def dataset_files(self, dataset: str) -> list[str]:
        """Images and annotations that the workflow generates or fetches; none for a user's own folder."""
        kept = dataset in self.drawn + self.fetched
        return [self.file(f"data/{dataset}/{name}") for name in ("images.tar", "dataset.json")] if kept else []

    def checkpoints(self) -> list[str]:
        """Checkpoints of all runs and seeds."""
        every = [(run, dataset) for run in self.config.expanded for dataset in run.datasets]
        return self._of_seeds("checkpoints", every, "safetensors")

    def table_metrics(self, table: str) -> list[str]:
        """Metrics of all rows and seeds of a table; none if it reads no metrics."""
        return self._metrics(self._table(table))

    def table_ranks(self, table: str) -> list[str]:
        """Ranks that lie beside the metrics of a table, for its paired comparisons."""
        return ranks_beside(self.table_metrics(table))

    def table_profiles(self, table: str) -> list[str]:
        """Profiles of all backbones of a table; none if it reads no profiles."""
        return self._profiles(self._table(table))

    def figure_metrics(self, figure: str) -> list[str]:
        """Metrics of all runs and seeds of a figure; none if it reads no metrics."""
        return self._metrics(self._figure(figure))

    def figure_profiles(self, figure: str) -> list[str]:
        """Profiles of all backbones of a figure; none if it reads no profiles."""
        return self._profiles(self._figure(figure))

    def figure_embeddings(self, figure: str) -> list[str]:
        """Embeddings of all runs of a figure, of the first seed; none if it reads no embeddings."""
        output = self._figure(figure)
        if "embeddings" not in output.kind.reads:
            return []
        seed = self.config.seeds[0]
        names = [f"embeddings/{dataset}/{run.name}/seed{seed}.safetensors" for run, dataset in output.rows]
        return [self.file(name) for name in names]

    def figure_images(self, figure: str) -> list[str]:
        """Images.csv of a figure that reads embeddings."""
        return [self.file(f"data/{self.config.dataset_of(figure)}/images.csv")] * bool(self.figure_embeddings(figure))

    def figure_queries(self, figure: str) -> list[str]:
        """The test captions of a figure that reads embeddings."""
        return [self.file(f"captions/{self.config.dataset_of(figure)}.queries.csv")] * bool(
            self.figure_embeddings(figure)
        )

    def _metrics(self, output: _Output) -> list[str]:
        return self._of_seeds("metrics", output.rows, "json") if "metrics" in output.kind.reads else []

    def _of_seeds(self, phase: str, rows: Sequence[tuple[Run, str]], suffix: str) -> list[str]:
        names = [
            f"{phase}/{dataset}/{run.name}/seed{seed}.{suffix}" for run, dataset in rows for seed in self.config.seeds
        ]
        return [self.file(name) for name in names]

    def _profiles(self, output: _Output) -> list[str]:
        names = dict.fromkeys(run.backbone or OWN_TOWERS for run in output.runs)
        return [self.file(f"efficiency/{name}.json") for name in names] if "efficiency" in output.kind.reads else []


def ranks_beside(metrics: Sequence[str]) -> list[str]:
    """The ranks that lie beside these metrics."""
    return [file.removesuffix(".json") + ".ranks.csv" for file in metrics]


def _profiled(run: Run) -> dict[str, Any]:
    settings = {"run": run.name, "method": run.method, "options": run.options.model_dump()}
    return settings | {"micro_batch": run.training.micro_batch}


def _settings(reranker: RerankerOptions) -> dict[str, Any]:
    return reranker.model_dump(exclude={"runs"})


def as_json(data: Any) -> str:
    """A spec: JSON with sorted keys."""
    return json.dumps(data, sort_keys=True, ensure_ascii=False)
