"""Resources of the steps of a config: processes, threads, GPUs, memory and time. Imports no torch.

Results depend on the numbers of processes and threads, which are settings of the config, and on nothing else here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmer.config.experiment import Config
from cmer.plan import OWN_TOWERS

BYTES_PER_ROW = 110
"""Mean length of a row of images.csv, from which the number of images is estimated without reading the file."""
UNSEEN_THOUSANDS = 10.0
"""Assumed size of a dataset that is not prepared yet, in thousands of images."""


@dataclass(frozen=True)
class StepResources:
    """What each step of the workflow takes of a machine.

    The name differs from Snakemake's own class `Resources`, which every file of rules can access.

    Args:
        config: the experiment.
    """

    config: Config

    def thousands(self, datasets: Sequence[str]) -> float:
        """Number of images of these datasets in thousands, estimated from the size of images.csv."""
        files = [Path(f"{self.config.results}/data/{name}/images.csv") for name in datasets]
        return sum(f.stat().st_size / BYTES_PER_ROW / 1000 if f.is_file() else UNSEEN_THOUSANDS for f in files)

    def processes(self, run: str) -> int:
        """Number of processes of a training."""
        return self.config.run(run).training.processes

    def threads(self, run: str) -> int:
        """Threads of one process of a run: a setting, not the number of cores: results on a CPU depend on it."""
        return self.config.run(run).training.threads

    def backbone_threads(self, backbone: str) -> int:
        """Threads of an extraction: a setting, not the number of cores: results on a CPU depend on it."""
        return self.config.backbones[backbone].threads

    def captioner_threads(self, captioner: str) -> int:
        """Threads of a captioning: a setting, not the number of cores: results on a CPU depend on it."""
        return self.config.captioners[captioner].cpu_threads

    def gpus_of_captioner(self, captioner: str) -> int:
        """Number of GPUs of a captioning: 1, or 0 if it runs no large model."""
        return int(self.config.captioners[captioner].gpu)

    def memory_of_captioner(self, captioner: str) -> int:
        """Memory in MB of a captioning, without its images."""
        return self.config.captioners[captioner].memory_mb

    def gpus_of_backbone(self, backbone: str) -> int:
        """Number of GPUs of a step that runs a backbone: 1, or 0 if it is too small to gain from one."""
        return int(backbone != OWN_TOWERS and self.config.backbones[backbone].gpu)

    def gpus(self, run: str) -> int:
        """Number of GPUs of a step that runs a trained model."""
        row = self.config.run(run)
        return int(row.options.gpu) if row.backbone is None else self.gpus_of_backbone(row.backbone)

    def gpus_of_training(self, run: str) -> int:
        """Number of GPUs of a training: one per process; 0 for a method without training."""
        return self.gpus(run) * self.processes(run) * self.config.run(run).options.trains

    def memory_of_backbone(self, backbone: str) -> int:
        """Memory in MB of a step that loads a backbone, without its images."""
        return 6000 if backbone == OWN_TOWERS else self.config.backbones[backbone].memory_mb

    def memory(self, run: str) -> int:
        """Memory in MB of a step of a run, without its images."""
        return self.memory_of_backbone(self.config.run(run).backbone or OWN_TOWERS)

    def threads_of_archive(self, archive: str) -> int:
        """Threads of the embedding of a shard: a setting, not the number of cores: results on a CPU depend on it."""
        return self.config.archives[archive].threads

    def gpus_of_archive(self, archive: str) -> int:
        """Number of GPUs of the embedding of a shard: those of the run; 0 for a model that is not of the config."""
        run = self.config.archives[archive].run
        return self.gpus(run) if run else 0

    def memory_of_archive(self, archive: str) -> int:
        """Memory in MB of embedding or joining the shards of an archive."""
        run = self.config.archives[archive].run
        return self.memory(run) if run else self.memory_of_backbone(OWN_TOWERS)

    def minutes_of_training(self, run: str, dataset: str) -> int:
        """Time limit in minutes, estimated from the number of images or pairs and from where the towers run."""
        row = self.config.run(run)
        options = row.training
        images = min(self.thousands([dataset]), (options.train_images or math.inf) / 1000)
        shown = options.epochs * images * (5 if options.epoch_of == "pairs" else 1)
        pace = 2 if options.inputs == "online" and not self.gpus(run) else 0.3
        return math.ceil(15 + pace * shown * row.options.trains)
