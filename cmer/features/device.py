"""Device and precision of towers and trainings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cmer.config.base import Precision


def device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: Precision) -> torch.autocast:
    """Context that computes in the configured precision, which is the same on every device."""
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` torch threads in the block, then restore the previous number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
