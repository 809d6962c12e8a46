"""Random draws of losses that are the same in every process and after a resumption."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator


def step_generator(seed: int, step: int, device: torch.device) -> Generator:
    """A generator for the draws of one step of a training.

    Seed and step are mixed, because torch's generator on a CPU reads the lower 32 bits of a seed only.
    """
    (mixed,) = np.random.SeedSequence([seed, step]).generate_state(1)
    return Generator(device).manual_seed(int(mixed))
