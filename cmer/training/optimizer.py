"""AdamW over a method's parameter groups, and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cmer.methods.base import Method


def adamw(method: Method, trained: dict[str, Tensor], weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters; each group has a `rate`, by which the scheduled learning rate is multiplied.

    Args:
        method: method whose parameter groups define rates and decays.
        trained: trained tensors by name; running statistics are skipped.
        weight_decay: weight decay of the run, for matrices and convolutions in groups that define no decay.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, tensor in trained.items():
        group = method.group_of(name)
        if group is None or not tensor.requires_grad:
            continue
        usual = weight_decay if tensor.ndim in (2, 4) else 0.0
        decay = usual if group.decay is None else group.decay
        groups.setdefault((group.rate, decay), []).append(tensor)
    settings = [{"params": params, "rate": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    return torch.optim.AdamW(settings, lr=0.0, betas=(0.9, 0.999))


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at a step: linear rise over the warm-up share, then cosine decay to 0."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
