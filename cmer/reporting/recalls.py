"""Every recall of a run with its own interval, for the card of a pretrained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cmer.io import read_sealed
from cmer.reporting.metrics import COMMAND, RECALLS
from cmer.retrieval.bootstrap import LEVELS, RESAMPLES, ImageHits
from cmer.retrieval.evaluate import RanksFile, read_hits


def recall_table(metrics: Path) -> pd.DataFrame:
    """Recalls and mR in percent by label protocol, with 95 % bootstrap intervals over the test images.

    Args:
        metrics: file that `cmer evaluate` wrote, with the ranks beside it.

    Returns:
        columns protocol, recall, value, low and high.

    Raises:
        UserError: a file is missing or damaged.
    """
    found = read_sealed(metrics, COMMAND)
    rows = []
    for protocol, recalls in found["protocols"].items():
        hits = read_hits(RanksFile(metrics.with_suffix(".ranks.csv"), found["ranks"]), protocol)
        for name, (low, high) in zip((*RECALLS, "mr"), _intervals(hits), strict=True):
            rows.append((protocol, name, recalls[name], round(low, 4), round(high, 4)))
    return pd.DataFrame(rows, columns=["protocol", "recall", "value", "low", "high"])


def _intervals(hits: ImageHits) -> list[tuple[float, float]]:
    """Intervals of the six recalls in the order of `RECALLS`, and of mR, from the resamples of `mr_interval`."""
    count = len(hits.images)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    i2t = draws @ hits.images / count
    t2i = draws @ hits.texts / (draws @ hits.captions)[:, None]
    each = 100 * np.concatenate([i2t, t2i], axis=1)
    bounds = np.percentile(np.concatenate([each, each.mean(axis=1, keepdims=True)], axis=1), LEVELS, axis=0)
    return [(float(low), float(high)) for low, high in bounds.T]
