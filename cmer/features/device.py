"""Device and precision of towers and trainings."""

from __future__ import annotations

import torch

from cmer.config.base import Precision


def device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision) -> torch.autocast:
    """Context that computes in the configured precision, which is the same on every device."""
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bfloat16")
