"""What a training does when memory runs out: it repeats the step in smaller parts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from cmer.errors import UserError
from cmer.training.checkpoint import load_tensors
from cmer.training.distributed import process_count
from cmer.training.parts import random_states, restore
from cmer.training.state import State

T = TypeVar("T")


def within_memory(attempt: Callable[[], T], state: State, run: str, pairs: int) -> T:
    """Result of `attempt`, which is repeated with half of `state.micro_batch` as long as memory runs out.

    Random generators and running statistics are restored first, and gradients are those of the last attempt, so that
    an attempt that failed leaves no trace.

    Args:
        attempt: computes the gradients of a batch in parts of `state.micro_batch` pairs, after deleting earlier ones.
        state: state of the training.
        run: name of the run.
        pairs: number of pairs that this process encodes.

    Raises:
        UserError: memory ran out with one pair at a time, or in one of several processes.
    """
    while True:
        random = random_states()
        statistics = {name: t.clone() for name, t in state.trained.items() if not t.requires_grad}
        with suppress(torch.OutOfMemoryError):
            return attempt()
        # Outside the handler, because the exception holds the step's tensors.
        size = min(state.micro_batch or pairs, pairs)
        if process_count() > 1:  # the others are waiting for this one's items
            raise UserError(f"{run}: out of memory; set training.micro_batch to less than {size}")
        if size == 1:
            raise UserError(
                f"{run}: out of memory with one pair at a time; lower training.batch_size, or take a smaller backbone"
            )
        state.optimizer.zero_grad()
        torch.cuda.empty_cache()  # has no effect without a GPU
        restore(random)
        load_tensors({name: state.trained[name] for name in statistics}, statistics, "the statistics before the step")
        state.micro_batch = size // 2
        print(f"{run}: out of memory; now encoding {state.micro_batch} pairs at a time", file=sys.stderr)
