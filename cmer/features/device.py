"""Device and precision of towers and trainings."""

from __future__ import annotations

import torch

from cmer.config.backbones import BackboneOptions


def device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(options: BackboneOptions) -> torch.autocast:
    """Autocast of frozen towers: bfloat16 on a GPU, the configured precision on a CPU."""
    kind = device().type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or options.precision == "bfloat16")
