import json
from pathlib import Path

import pytest

from cmer.reporting.measured import RECALLS


@pytest.fixture
def write_metrics(tmp_path):
    """Write a run's metrics, mR given per seed; `oracle` is ten points above `none`."""

    def write(run: dict, mrs: dict[int, float]) -> list[Path]:
        files = []
        for seed, mr in mrs.items():
            six = {p: dict.fromkeys((*RECALLS, "mr"), mr + add) for p, add in (("none", 0), ("oracle", 10))}
            spec = {"run": run["name"], "dataset": run["dataset"], "seed": seed}
            metrics = {
                "protocols": {p: row | {"mr_interval": [row["mr"] - 1.5, row["mr"] + 1.4]} for p, row in six.items()},
                "controls": {"label_only": dict.fromkeys((*RECALLS, "mr"), 5.0)},
                "record": {
                    "spec": spec,
                    "trainable_parameters": 2_719_552,
                    "train_images": 8_734,
                    "images_seen": 174_680,
                    "epochs": 20,
                },
            }
            files.append(tmp_path / f"{run['dataset']}.{run['name']}.{seed}.json")
            files[-1].write_text(json.dumps(metrics))
        return files

    return write
