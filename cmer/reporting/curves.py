"""Training curves, as `cmer train` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmer.errors import UserError
from cmer.io import read_text

Curve = Sequence[Mapping[str, Any]]


def read_curve(path: Path) -> Curve:
    """Epochs of a training, in order.

    Raises:
        UserError: the file is damaged.
    """
    try:
        curve = [json.loads(line) for line in read_text(path).splitlines()]
        return [{"epoch": int(one["epoch"]), "loss": sum(one["loss"].values())} | _validated(one) for one in curve]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; run `cmer train` again") from None


def _validated(entry: Mapping[str, Any]) -> dict[str, float]:
    return {"val_mr": float(entry["val_mr"])} if "val_mr" in entry else {}
