"""What settings are chosen on: the validation recall of every training, and nothing of the test split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cmer.training.checkpoint import load


def validation_table(checkpoints: Iterable[Path]) -> pd.DataFrame:
    """A row a training: its budget, learning rate, and the validation mR (percent) of its best epoch.

    Rows are ordered by dataset and run, seeds within them; the same checkpoints give the same table.

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
