"""Validation recall of every training run, on which settings are selected; the test split plays no part."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cmer.training.checkpoint import load


def validation_table(checkpoints: Iterable[Path]) -> pd.DataFrame:
    """One row per training run: budget, learning rate, and validation mR (percent) of the best epoch.

    Rows are ordered by dataset, run and seed; the order of the checkpoints does not matter.

    Raises:
        UserError: a checkpoint is missing or damaged.
    """
    rows = []
    for path in checkpoints:
        _, made = load(path)
        spec = made["spec"]
        rows.append(
            {
                "dataset": spec["dataset"],
                "run": spec["run"],
                "seed": spec["seed"],
                "method": spec["method"],
                "lr": spec["training"]["lr"],
                "images": made["train_images"],
                "epochs": made["epochs"],
                "best_epoch": made["best_epoch"],
                "val_mr": made["val_mr"],
            }
        )
    return pd.DataFrame(rows).sort_values(["dataset", "run", "seed"], ignore_index=True)
