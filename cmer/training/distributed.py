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

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from cmer.data.sampler import Batch
from cmer.errors import UserError
from cmer.methods.base import Items

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one validates alone."""


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; that one validates, saves and reports."""
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
def _others() -> Iterator[None]:
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


def share(batch: Batch) -> Batch:
    """The pairs of a batch that are for this process: consecutive ones, as many as the others' or one more."""
    size = len(batch.images)
    own = slice(size * rank() // count(), size * (rank() + 1) // count())
    return Batch(batch.images[own], batch.captions[own], batch.prompted[own], batch.views[own])


def gather(items: Items) -> Items:
    """The items of the whole batch, of those of every process; a tree of tensors that differ in length alone."""
    return tree_map(lambda tensor: _gather(tensor)[0], items) if count() > 1 else items


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes: the gradient of the losses, which each has in full."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if count() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    with _others():
        dist.all_reduce(flat)
    flat /= count()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def prepare(method: nn.Module, seed: int) -> None:
    """Let BatchNorm take its statistics over the whole batch, and dropout differ between processes."""
    if count() == 1:
        return
    if rank():
        torch.manual_seed(seed + rank())
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            whole = _WholeBatch()
            module.register_forward_pre_hook(whole.before)
            module.register_forward_hook(whole.after)


def from_first(value: T) -> T:
    """The first process's value, in every process."""
    values = [value]
    if count() > 1:
        with _others():
            dist.broadcast_object_list(values)
    return values[0]


def of_all(value: T) -> list[T]:
    """The values of all processes, by their numbers."""
    values: list[Any] = [value] * count()
    if count() > 1:
        with _others():
            dist.all_gather_object(values, value)
    return values


def _gather(own: Tensor) -> tuple[Tensor, slice]:
    gathered: tuple[Tensor, slice] = _Gather.apply(own)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """[b, ...] of each process → [B, ...] of all in every process, and the place of this one's rows in it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> tuple[Tensor, slice]:
        lengths = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(count())]
        with _others():
            dist.all_gather(lengths, torch.tensor([len(own)], device=own.device))
        sizes = [int(length) for length in lengths]
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # only equal shapes can be gathered
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        with _others():
            dist.all_gather(parts, padded)
        ctx.own = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), ctx.own

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> Tensor:
        """Every process's losses depend on the rows: the sum of all their gradients."""
        total = gradient.contiguous().clone()
        with _others():
            dist.all_reduce(total)
        return total[ctx.own]


class _WholeBatch:
    """Hooks around a module that in training must see the batch of all processes, and gives back this one's rows."""

    own = slice(None)

    def before(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        if not module.training:
            return inputs
        whole, self.own = _gather(inputs[0])
        return (whole,)

    def after(self, module: nn.Module, _: tuple[Tensor], output: Tensor) -> Tensor:
        return output[self.own] if module.training else output
