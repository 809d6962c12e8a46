"""What each step of the workflow reads, executes, needs and takes: functions of a config. Nothing here imports torch.

Specs are JSON of exactly what a step reads, so that a changed setting plans the steps that depend on it, and no other.
Names that only tables print are the tables' alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cmer import features, profiling, retrieval, training
from cmer.config.datasets import PublishedDataset
from cmer.config.experiment import Config
from cmer.config.runs import Run
from cmer.data.cards import card, fingerprint
from cmer.io import digest
from cmer.profiling.spec import ProfileSpec
from cmer.provenance import code_digest
from cmer.registry import FIGURES, TABLES, Registry
from cmer.reporting.base import Figure, Table
from cmer.reporting.paper import printed_file

OWN_TOWERS = "own_towers"
"""Stands for a backbone in the name of the profile of methods that bring their own towers."""
BYTES_PER_ROW = 110
"""Of images.csv; counting its rows would read it for every job."""
UNSEEN_THOUSANDS = 10.0
"""Thousand images that are assumed of a dataset that is not prepared yet."""

digest_code = cache(code_digest)
"""Digests of sources are asked for every job: half of the time that planning takes."""


@dataclass(frozen=True)
class _Output:
    """A table or figure of the config: what registers its kind, its runs, and its rows."""

    registry: Registry[Any]
    name: str
    runs: list[Run]
    rows: list[tuple[Run, str]]

    @property
    def kind(self) -> type[Table] | type[Figure]:
        found: type[Table] | type[Figure] = self.registry.get(self.name)
        return found

    def code(self) -> str:
        printed = [printed_file(number).read_text(encoding="utf-8") for number in self.kind.printed]
        return digest([digest_code(self.registry.module(self.name)), printed])


@dataclass(frozen=True)
class Plan:
    """The workflow of a config.

    Args:
        config: the experiment.
    """

    config: Config

    # --- what there is --------------------------------------------------------------------------------------------

    @property
    def drawn(self) -> list[str]:
        """Datasets that the project draws."""
        return [name for name, data in self.config.datasets.items() if data.source == "demo"]

    @property
    def fetched(self) -> list[str]:
        """Published datasets that are not used in a user's folder."""
        found = self.config.datasets.items()
        return [name for name, data in found if isinstance(data, PublishedDataset) and data.root is None]

    @property
    def used(self) -> list[str]:
        """Datasets that a run is on."""
        return [name for name in self.config.datasets if any(name in run.datasets for run in self.config.expanded)]

    @property
    def profiled(self) -> list[str]:
        """Backbones of which a table or figure needs a profile; `OWN_TOWERS` for methods without one."""
        return [name for name in [*self.config.backbones, OWN_TOWERS] if self._profiled_runs(name)]

    def _profiled_runs(self, backbone: str) -> list[Run]:
        outputs = [*map(self._table, self.config.tables), *map(self._figure, self.config.figures)]
        runs = {run.name: run for output in outputs if "efficiency" in output.kind.reads for run in output.runs}
        return [run for run in runs.values() if (run.backbone or OWN_TOWERS) == backbone]

    def _table(self, name: str) -> _Output:
        entry = self.config.tables[name]
        rows = self.config.rows(entry.runs, entry.datasets)
        return _Output(TABLES, entry.kind, self.config.matching(entry.runs), rows)

    def _figure(self, name: str) -> _Output:
        entry = self.config.figures[name]
        rows = self.config.rows(entry.runs, [self.config.dataset_of(name)])
        return _Output(FIGURES, entry.kind, self.config.matching(entry.runs), rows)

    # --- specs ----------------------------------------------------------------------------------------------------

    def data_spec(self, dataset: str) -> str:
        """What preparing a dataset reads of its settings."""
        return _json(self._data(dataset))

    def fetch_spec(self, dataset: str) -> str:
        """What fetching a dataset reads of its settings."""
        data = self.config.datasets[dataset]
        return _json(data.model_dump(include={"source", "sources"}) | {"title": dataset})

    def exclusion_spec(self, dataset: str) -> str:
        """What of a dataset's train images is left out."""
        return _json({"dataset": dataset, "exclude": self.config.datasets[dataset].exclude})

    def prompt_spec(self, dataset: str) -> str:
        """What augmenting captions reads."""
        return _json(self._data(dataset) | {"template": self.config.datasets[dataset].template})

    def features_spec(self, dataset: str, backbone: str) -> str:
        """What an extraction reads."""
        return _json({"dataset": self._data(dataset), "backbone": self._backbone(backbone)})

    def run_spec(self, run: str, dataset: str, seed: str) -> str:
        """What a training reads."""
        spec = self.config.spec(run, dataset, int(seed)).model_dump()
        backbone = self.config.run(run).backbone
        spec["backbone"] = self._backbone(backbone) if backbone else None
        spec["source"] = spec["source"] and self._data(dataset)
        return _json(spec)

    def profile_spec(self, backbone: str) -> str:
        """What a profile measures: all profiled runs on a backbone, so that they can be compared."""
        runs = self._profiled_runs(backbone)
        return _json(
            {
                "name": backbone,
                "backbone": None if backbone == OWN_TOWERS else self._backbone(backbone),
                "rows": [{"run": run.name, "method": run.method, "options": run.options.model_dump()} for run in runs],
                "profile": self.config.profile.model_dump(exclude={"count_only"}),
                "count_only": backbone in self.config.profile.count_only,
            }
        )

    def table_spec(self, table: str) -> str:
        """What a table is made of besides its files; seeds and label protocols are those of metrics."""
        output, entry = self._table(table), self.config.tables[table]
        if "metrics" not in output.kind.reads:
            runs = [self._tabled(run) for run in output.runs]
            return _json({"kind": entry.kind, "runs": runs, "protocols": [], "seeds": []})
        runs = self._rows(output)
        return _json({"kind": entry.kind, "runs": runs, "protocols": entry.protocols, "seeds": self.config.seeds})

    def figure_spec(self, figure: str) -> str:
        """What a figure is made of besides its files."""
        output = self._figure(figure)
        return _json({"kind": output.name, "runs": self._rows(output), "seeds": self.config.seeds})

    def _data(self, dataset: str) -> dict[str, Any]:
        return self.config.datasets[dataset].model_dump(exclude={"template", "exclude"}) | {"title": dataset}

    def _backbone(self, backbone: str) -> dict[str, Any]:
        return self.config.backbones[backbone].model_dump() | {"printed": backbone}

    def _rows(self, output: _Output) -> list[dict[str, Any]]:
        return [
            self._tabled(run) | {"dataset": dataset, "dataset_title": self.config.datasets[dataset].title}
            for run, dataset in output.rows
        ]

    def _tabled(self, run: Run) -> dict[str, Any]:
        printed = self.config.backbones[run.backbone].printed if run.backbone else "own towers"
        options = run.options.model_dump()
        return {"name": run.name, "backbone_printed": printed, "method": run.method, "options": options}

    # --- code -----------------------------------------------------------------------------------------------------

    def card_digest(self, dataset: str) -> str:
        """Of what fetching and preparing read of a published dataset's card, which is data and not code."""
        data = self.config.datasets[dataset]
        if data.kind != "published":
            return ""
        layout = card(data.source).model_dump(mode="json", include={"annotations", "images", "labels"})
        return digest([layout, fingerprint(data.source).model_dump()])

    def extraction_code(self, backbone: str) -> str:
        """Of an extraction."""
        return digest_code(*features.MODULES, self.config.backbones[backbone].module())

    def training_code(self, run: str) -> str:
        """Of a training."""
        return digest_code(*training.MODULES, *self._modules(run))

    def embedding_code(self, run: str) -> str:
        """Of an embedding."""
        return digest_code(*retrieval.MODULES, *self._modules(run))

    def profile_code(self, backbone: str) -> str:
        """Of a profile."""
        return digest_code(*profiling.MODULES, *ProfileSpec.model_validate_json(self.profile_spec(backbone)).modules())

    def table_code(self, table: str) -> str:
        """Of a table, and of the printed values that it holds."""
        return self._table(table).code()

    def figure_code(self, figure: str) -> str:
        """Of a figure, and of the printed values that it holds."""
        return self._figure(figure).code()

    def _modules(self, run: str) -> list[str]:
        return self.config.spec(run, next(iter(self.config.datasets)), 0).modules()

    # --- needs ----------------------------------------------------------------------------------------------------

    def dataset_files(self, dataset: str) -> list[str]:
        """A dataset's own files; a user's folder stays in place, and its path differs from machine to machine."""
        kept = dataset in self.drawn + self.fetched
        return [self._file(f"data/{dataset}/{name}") for name in ("images.tar", "dataset.json")] if kept else []

    def features_of_run(self, run: str, dataset: str) -> list[str]:
        """The manifest of what the run reads; an online run reads pixels."""
        row = self.config.run(run)
        return [self._file(f"features/{dataset}/{row.backbone}.json")] if row.training.inputs == "stored" else []

    def excluded_of_run(self, dataset: str, seed: str) -> list[str]:
        """The captions that a run must not train on, where its dataset leaves some out."""
        leaks = self.config.datasets[dataset].exclude
        return [self._file(f"data/{dataset}/excluded.seed{seed}.csv")] if leaks else []

    def checkpoints(self) -> list[str]:
        """Of every run and seed."""
        every = [(run, dataset) for run in self.config.expanded for dataset in run.datasets]
        return self._of_seeds("checkpoints", every, "safetensors")

    def table_metrics(self, table: str) -> list[str]:
        """Of every row and seed of a table, where it reads metrics."""
        return self._metrics(self._table(table))

    def table_profiles(self, table: str) -> list[str]:
        """Of every backbone of a table's runs, where it reads them."""
        return self._profiles(self._table(table))

    def figure_metrics(self, figure: str) -> list[str]:
        """Of every run and seed of a figure, where it reads metrics."""
        return self._metrics(self._figure(figure))

    def figure_profiles(self, figure: str) -> list[str]:
        """Of every backbone of a figure's runs, where it reads them."""
        return self._profiles(self._figure(figure))

    def _metrics(self, output: _Output) -> list[str]:
        return self._of_seeds("metrics", output.rows, "json") if "metrics" in output.kind.reads else []

    def _of_seeds(self, phase: str, rows: Sequence[tuple[Run, str]], suffix: str) -> list[str]:
        names = [
            f"{phase}/{dataset}/{run.name}/seed{seed}.{suffix}" for run, dataset in rows for seed in self.config.seeds
        ]
        return [self._file(name) for name in names]

    def _profiles(self, output: _Output) -> list[str]:
        names = dict.fromkeys(run.backbone or OWN_TOWERS for run in output.runs)
        return [self._file(f"efficiency/{name}.json") for name in names] if "efficiency" in output.kind.reads else []

    def _file(self, name: str) -> str:
        return f"{self.config.results}/{name}"

    # --- what a step takes ----------------------------------------------------------------------------------------

    def thousands(self, datasets: Sequence[str]) -> float:
        """Images of these datasets, in thousands, told from the size of images.csv."""
        files = [Path(self._file(f"data/{name}/images.csv")) for name in datasets]
        return sum(f.stat().st_size / BYTES_PER_ROW / 1000 if f.is_file() else UNSEEN_THOUSANDS for f in files)

    def processes(self, run: str) -> int:
        """Of a training."""
        return self.config.run(run).training.processes

    def threads(self, run: str) -> int:
        """Of one process of a run: part of its result on a CPU, so never the machine's number."""
        return self.config.run(run).training.threads

    def backbone_threads(self, backbone: str) -> int:
        """Of an extraction: part of its result on a CPU, so never the machine's number."""
        return self.config.backbones[backbone].threads

    def gpus_of_backbone(self, backbone: str) -> int:
        """Of a step that runs its towers; small ones share what there is."""
        return int(backbone != OWN_TOWERS and self.config.backbones[backbone].gpu)

    def gpus(self, run: str) -> int:
        """Of a step that runs the run's towers."""
        row = self.config.run(run)
        return int(row.options.gpu) if row.backbone is None else self.gpus_of_backbone(row.backbone)

    def gpus_of_training(self, run: str) -> int:
        """One for each process of a run that trains."""
        return self.gpus(run) * self.processes(run) * self.config.run(run).options.trains

    def memory_of_backbone(self, backbone: str) -> int:
        """MB that a step which loads it takes beside its images."""
        return 6000 if backbone == OWN_TOWERS else self.config.backbones[backbone].memory_mb

    def memory(self, run: str) -> int:
        """MB that a step of the run takes beside its images."""
        return self.memory_of_backbone(self.config.run(run).backbone or OWN_TOWERS)

    def minutes_of_training(self, run: str, dataset: str) -> int:
        """By the images or pairs that are shown. A CPU that computes the towers' outputs at every step is slow."""
        row = self.config.run(run)
        options = row.training
        images = min(self.thousands([dataset]), (options.train_images or math.inf) / 1000)
        shown = options.epochs * images * (5 if options.epoch_of == "pairs" else 1)
        pace = 2 if options.inputs == "online" and not self.gpus(run) else 0.3
        return math.ceil(15 + pace * shown * row.options.trains)


def _json(data: Any) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False)
