"""The files that the steps of a run read besides those that every run has. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from cmer.config.experiment import Config
from cmer.config.places import files_at


@dataclass(frozen=True)
class RunInputs:
    """Input files that depend on a run's settings: none or one of each kind, as a list.

    Args:
        config: the experiment.
    """

    config: Config

    def file(self, name: str) -> str:
        """The path of a file in the results folder."""
        return f"{self.config.results}/{name}"

    def features_of_run(self, run: str, dataset: str) -> list[str]:
        """The manifest of the stored features that a run reads; none for a run that reads pixels."""
        row = self.config.run(run)
        return [self.file(f"features/{dataset}/{row.backbone}.json")] if row.training.inputs == "stored" else []

    def weights_of_backbone(self, backbone: str) -> list[str]:
        """The user's own files that a backbone's towers are read from."""
        return files_at(self.config.backbones[backbone].places())

    def weights_of_run(self, run: str) -> list[str]:
        """The user's own files that the towers of a run are read from, the backbone's and the method's."""
        row = self.config.run(run)
        return files_at(row.options.places()) + (self.weights_of_backbone(row.backbone) if row.backbone else [])

    def captioner_files(self, captioner: str) -> list[str]:
        """Files of the user that a captioner reads."""
        return self.config.captioners[captioner].files()

    def rich_of_run(self, run: str, dataset: str) -> list[str]:
        """The rich texts that a run reads in place of images; none for other runs."""
        rich = self.config.run(run).options.rich
        return [self.file(f"rich/{dataset}/{rich.captioner}.jsonl")] if rich else []

    def excluded_of_run(self, dataset: str, seed: str) -> list[str]:
        """The list of captions that are excluded from training, if the dataset excludes any."""
        leaks = self.config.datasets[dataset].exclude
        return [self.file(f"data/{dataset}/excluded.seed{seed}.csv")] if leaks else []

    def partner_embeddings(self, reranker: str, dataset: str, seed: str) -> list[str]:
        """Embeddings of a reranker's partner run; none for a reranker without one."""
        return self._of_partner("embeddings", reranker, dataset, seed)

    def partner_bank(self, reranker: str, dataset: str, seed: str) -> list[str]:
        """The bank of a reranker's partner run; none for a reranker without one."""
        return self._of_partner("banks", reranker, dataset, seed)

    def _of_partner(self, phase: str, reranker: str, dataset: str, seed: str) -> list[str]:
        partner = self.config.rerankers[reranker].partner_run
        return [self.file(f"{phase}/{dataset}/{partner}/seed{seed}.safetensors")] if partner else []
