"""The report as functions of a config: its spec, code digest and input files. Imports no torch."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from cmer import training
from cmer.config.runs import Run
from cmer.io import digest, read_text
from cmer.plan import as_json, digest_code, ranks_beside
from cmer.plan_archives import ArchivePlan
from cmer.registry import FIGURES
from cmer.reporting import report
from cmer.reporting.base import Figure


class ReportPlan(ArchivePlan):
    """The workflow of a config, with its archives and its report."""

    def report_spec(self) -> str:
        """Settings of the report: all tables and figures, and the runs that they show."""
        shown = {
            kind: [{"name": name, "kind": entry.kind} for name, entry in section.items()]
            for kind, section in (("tables", self.config.tables), ("figures", self.config.figures))
        }
        runs = [
            row | {"training": run.training.model_dump()}
            for (run, _), row in zip(self._reported, self._rows(self._reported), strict=True)
        ]
        datasets = {dataset: self._data(dataset) for dataset in self.reported}
        return as_json(
            {"folder": self.config.results, "runs": runs, "seeds": self.config.seeds, "datasets": datasets} | shown
        )

    @cached_property
    def _reported(self) -> list[tuple[Run, str]]:
        """The runs whose recall a table or figure shows."""
        outputs = [*map(self._table, self.config.tables), *map(self._figure, self.config.figures)]
        rows = {
            (run.name, dataset): (run, dataset)
            for output in outputs
            if "metrics" in output.kind.reads
            for run, dataset in output.rows
        }
        return list(rows.values())

    @property
    def reported(self) -> list[str]:
        """Datasets whose images the report shows."""
        return list(dict.fromkeys(dataset for _, dataset in self._reported))

    def figure_spec(self, figure: str) -> str:
        """Settings of a figure, with those of the dataset whose pictures it shows."""
        output, entry = self._figure(figure), self.config.figures[figure]
        kind: type[Figure] = FIGURES.get(output.name)
        pictures = {"pictures": self._data(self.config.dataset_of(figure))} if "pictures" in kind.reads else {}
        settings = {name: getattr(entry, name) for name in kind.settings} | pictures
        return as_json({"kind": output.name, "runs": self._rows(output.rows), "seeds": self.config.seeds} | settings)

    def figure_pictures(self, figure: str) -> list[str]:
        """Files that the pictures of a figure are read from; none if it shows none or those of a user's own folder."""
        shows = "pictures" in self._figure(figure).kind.reads
        return self.dataset_files(self.config.dataset_of(figure)) if shows else []

    def figure_heat_maps(self, figure: str) -> list[str]:
        """Heat maps of all runs of a figure, of the first seed; none if it shows none."""
        output = self._figure(figure)
        if "heat_maps" not in output.kind.reads:
            return []
        seed = self.config.seeds[0]
        return [self.file(f"heat_maps/{dataset}/{run.name}/seed{seed}.json") for run, dataset in output.rows]

    def heat_map_spec(self, run: str, dataset: str, seed: str) -> str:
        """Settings that the heat maps of a run read: the run, the dataset, and the queries of all figures of them."""
        figures = [
            entry
            for name, entry in self.config.figures.items()
            if f"{self.config.results}/heat_maps/{dataset}/{run}/seed{seed}.json" in self.figure_heat_maps(name)
        ]
        queries = list(dict.fromkeys(query for entry in figures for query in entry.queries))
        spec = json.loads(self.run_spec(run, dataset, seed))
        return as_json({"run": spec, "dataset": self._data(dataset), "queries": queries})

    def heat_map_code(self, run: str) -> str:
        """Code digest of heat maps."""
        return digest_code(*training.HEAT_MAPS, *self._modules(run))

    def report_code(self) -> str:
        """Digest of the report's code and templates, and of what its figures and tables are called."""
        templates = sorted(Path(report.__file__).parent.glob("templates/*"))
        return digest([digest_code("cmer.reporting.report.page"), [read_text(file) for file in templates]])

    def report_files(self) -> list[str]:
        """Everything that the report shows: tables, figures, curves, and metrics and queries of its runs."""
        tables = [self.file(f"{name}.csv") for name in self.config.tables]
        figures = [self.file(f"figures/{name}.{suffix}") for name in self.config.figures for suffix in ("svg", "csv")]
        trained = [(run, dataset) for run, dataset in self._reported if run.options.trains and not run.reranker]
        metrics = self._of_seeds("metrics", self._reported, "json")
        return [
            *tables,
            *figures,
            *metrics,
            *ranks_beside(metrics),
            *self._of_seeds("metrics", self._reported, "queries.json"),
            *self._of_seeds("curves", trained, "jsonl"),
        ]

    def report_datasets(self) -> list[str]:
        """What the report reads of its datasets."""
        described = [self.file(f"data/{dataset}/images.csv") for dataset in self.reported]
        return described + [file for dataset in self.reported for file in self.dataset_files(dataset)]
