"""Training in several processes that torchrun starts: each encodes its share of a batch, all compute all its losses.

Every process goes through the same batches, holds the same weights and the same memory of past batches. Embeddings
are gathered with their gradients before the losses, so that these, the queue and each step are those of one process.
Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_gather_tensor_autograd
from torch.utils._pytree import tree_flatten, tree_unflatten

from cmer.data.pairs import Ints
from cmer.errors import UserError
from cmer.methods.items import Items, pad_to

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one validates alone."""


def process_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; the first validates, saves and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(processes: int) -> Iterator[None]:
    """Work with the other processes of the training while the block runs, on a GPU of one's own where there is one.

    Raises:
        UserError: not `processes` of them were started, or there are fewer GPUs; or, while the block runs, another one
            ended.
    """
    started, gpus = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.device_count()
    if started != processes:
        raise UserError(
            f"training.processes is {processes}, but {started} of them started: begin the command with "
            + (f"torchrun --standalone --nproc-per-node {processes} -m cmer" if processes > 1 else "cmer")
        )
    if processes == 1:
        yield
        return
    if gpus:
        local = int(os.environ["LOCAL_RANK"])
        if local >= gpus:
            raise UserError(f"training.processes is {processes}, but this machine has {gpus} GPUs: each needs one")
        torch.cuda.set_device(local)
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    dist.init_process_group("nccl" if gpus else "gloo", timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # after an error the others hear of its end by this one's, when its reason is said


@contextmanager
def _other_processes() -> Iterator[None]:
    """Around what all processes do together: an end of one of them is an error of the backend in the others.

    Raises:
        UserError: another process ended, or did not answer for two hours.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError("another process of the training was killed, or ended in an error of its own") from error


def _end_with(parent: int) -> None:
    """Exit when torchrun is gone: a kill that it cannot pass on would leave its processes on the GPUs."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Shares:
    """Divides every batch into equal shares, one per process, and joins what the processes make of them.

    The last share of a batch that does not divide evenly is filled up with the batch's first pairs; what is computed
    of these again is dropped when the shares are joined. BatchNorm takes its statistics over the whole batch, and
    dropout differs between processes.

    Args:
        method: whose BatchNorm layers see whole batches from now on.
        seed: of the run.
    """

    def __init__(self, method: nn.Module, seed: int) -> None:
        self.size, self.own = 0, np.arange(0)
        if process_count() == 1:
            return
        if rank():
            torch.manual_seed(seed + rank())
        for module in method.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.register_forward_pre_hook(self._whole)
                module.register_forward_hook(self._share)

    def rows(self, size: int) -> Ints:
        """Rows of a batch of `size` pairs that are this process's."""
        each = -(-size // process_count())
        self.size, self.own = size, np.arange(each * rank(), each * (rank() + 1)) % size
        return self.own

    def gather(self, items: Items) -> Items:
        """The items of the whole batch, from those of every process, gradients included."""
        if process_count() == 1:
            return items
        leaves, structure = tree_flatten(items)
        lengths = _longest([leaf.shape[1] if leaf.ndim > 1 else 0 for leaf in leaves], leaves[0].device)
        padded = [pad_to(leaf, length) if leaf.ndim > 1 else leaf for leaf, length in zip(leaves, lengths, strict=True)]
        return tree_unflatten([self._gather(leaf) for leaf in padded], structure)

    def _gather(self, own: Tensor) -> Tensor:
        world = dist.group.WORLD
        assert world is not None
        with _other_processes():
            whole: Tensor = all_gather_tensor_autograd(own.contiguous(), 0, world)
        return whole[: self.size]

    def _whole(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (self._gather(inputs[0]),) if module.training else inputs

    def _share(self, module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output[torch.from_numpy(self.own)] if module.training else output


def _longest(lengths: list[int], device: torch.device) -> list[int]:
    """The largest of each length over all processes: only equal shapes can be gathered."""
    largest = torch.tensor(lengths, device=device)
    with _other_processes():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    found: list[int] = largest.tolist()
    return found


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes: the gradient of the losses, which each has in full."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if process_count() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    with _other_processes():
        dist.all_reduce(flat)
    flat /= process_count()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def broadcast(value: T) -> T:
    """The first process's value, in every process."""
    values = [value]
    if process_count() > 1:
        with _other_processes():
            dist.broadcast_object_list(values)
    return values[0]


def all_gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    values: list[Any] = [value] * process_count()
    if process_count() > 1:
        with _other_processes():
            dist.all_gather_object(values, value)
    return values
