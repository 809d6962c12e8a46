"""Where towers and trainings compute, and in which precision."""

from __future__ import annotations

import torch

from cmer.config.backbones import BackboneOptions


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(options: BackboneOptions) -> torch.autocast:
    """The precision that frozen towers compute in: bfloat16 on a GPU, on a CPU what the config says."""
    kind = device().type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or options.precision == "bfloat16")
