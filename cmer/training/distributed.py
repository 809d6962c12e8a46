"""Training in several processes started by torchrun: each encodes its share of a batch, and all compute all losses.

Every process uses the same batches and has the same weights and the same memory of past batches. An all-gather with
gradients precedes the losses, so that losses, queue and steps equal those of a single process. Without torchrun there
is a single process, and these functions have no effect.
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
"""Maximum time that processes wait for each other; only the first process validates."""


def process_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; process 0 validates, saves and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(processes: int) -> Iterator[None]:
    """Join the other processes of the training while the block runs, each on its own GPU if there are GPUs.

    Raises:
        UserError: another number of processes was started, or there are too few GPUs; or another process ended while
            the block ran.
    """
    started, gpus = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.device_count()
    if started != processes:
        raise UserError(
            f"training.processes is {processes}, but {started} started: begin the command with "
            + (f"torchrun --standalone --nproc-per-node {processes} -m cmer" if processes > 1 else "cmer")
        )
    if processes == 1:
        yield
        return
    if gpus:
        local = int(os.environ["LOCAL_RANK"])
        if local >= gpus:
            raise UserError(
                f"training.processes is {processes}, but this machine has {gpus} GPUs: each process needs one"
            )
        torch.cuda.set_device(local)
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    dist.init_process_group("nccl" if gpus else "gloo", timeout=PATIENCE)
    yield
    # Not after an error: this process first reports the error, and the others notice when it exits.
    dist.destroy_process_group()


@contextmanager
def _other_processes() -> Iterator[None]:
    """Wrap collective operations, in which the end of another process raises an error of the backend.

    Raises:
        UserError: another process ended, or did not respond for two hours.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError("another process of the training was killed or failed") from error


def _end_with(parent: int) -> None:
    """Exit when torchrun is gone; if it is killed by SIGKILL, its processes would otherwise stay on the GPUs."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Shares:
    """Divides every batch into equal shares, one per process, and gathers the items of all shares.

    If a batch does not divide evenly, its last share is filled with the batch's first pairs; these duplicates are
    dropped after gathering. BatchNorm computes its statistics over the whole batch; dropout differs between processes.

    Args:
        method: method whose BatchNorm layers are synchronised over processes.
        seed: seed of the run.
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
        """Rows of this process's share in a batch of `size` pairs."""
        each = -(-size // process_count())
        self.size, self.own = size, np.arange(each * rank(), each * (rank() + 1)) % size
        return self.own

    def gather(self, items: Items) -> Items:
        """All-gather of items, with gradients: the items of the whole batch from those of every process."""
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
    """Maximum of each length over all processes, because only equal shapes can be gathered."""
    largest = torch.tensor(lengths, device=device)
    with _other_processes():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    found: list[int] = largest.tolist()
    return found


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients with their mean over processes, each of which computed the losses of the whole batch."""
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
    """Broadcast the value of process 0 to all processes."""
    values = [value]
    if process_count() > 1:
        with _other_processes():
            dist.broadcast_object_list(values)
    return values[0]


def all_gather(value: T) -> list[T]:
    """All-gather: the values of all processes, by rank."""
    values: list[Any] = [value] * process_count()
    if process_count() > 1:
        with _other_processes():
            dist.all_gather_object(values, value)
    return values
