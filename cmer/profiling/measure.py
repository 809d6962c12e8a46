"""Measures of a training step: what it keeps for the backward pass, its arithmetic, its peak memory, its time."""

from __future__ import annotations

import ctypes
import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from cmer.methods.base import Method
from cmer.profiling.step import Step, plain_attention

MIB = 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers of them, from its malloc.h."""


def saved_bytes(run: Callable[[], object], kept: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward passes of what `run` computes.

    Counted are storages, each once and whole, as they stay in memory: a view keeps all of what it views. The
    storages of the tensors `kept`, which are there anyway, do not count.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in kept}
    found: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in found.values())


def macs(step: Step) -> tuple[int, int]:
    """Multiply-accumulates of a step's matrix products and convolutions: to the losses, and after them.

    Under plain attention whatever the step's own is: the counter knows no fused kernel of a CPU.
    """
    marks: list[int] = []
    counter = flop_counter()
    noted = _after_losses(step.model.method, lambda: marks.append(counter.get_total_flops()))
    with counter, noted, plain_attention():
        step.run()
    (forward,) = marks
    return forward // 2, (counter.get_total_flops() - forward) // 2


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of FLOPs, two a multiply-accumulate, mended for convolutions in groups.

    Its own formula for the gradient of their weights leaves the groups out: 32 times too much for 32 channels of a
    depthwise convolution.
    """
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward})


def _convolution_backward(
    outputs: Sequence[int], _inputs: Sequence[int], weight: Sequence[int], *arguments: Any, out_shape: Any
) -> int:
    """FLOPs from the shapes of the gradient [B, out, ...] and of the weight [out, in / groups, ...].

    The gradients of inputs and of the weight cost as much as the convolution itself; `arguments` ends with which of
    them are asked for.
    """
    to_inputs, to_weight, _to_bias = arguments[-1]
    return 2 * outputs[0] * math.prod(outputs[2:]) * math.prod(weight) * (int(to_inputs) + int(to_weight))


@contextmanager
def _after_losses(method: Method, call: Callable[[], object]) -> Iterator[None]:
    losses = method.losses

    def followed(*arguments: object) -> dict[str, Tensor]:
        result = losses(*arguments)  # type: ignore[arg-type]
        call()
        return result

    method.losses = followed  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del method.losses


def peak_bytes(run: Callable[[], object]) -> tuple[int | None, int | None]:
    """Peak memory while `run` runs.

    Returns:
        On a GPU the most that all tensors took, those before it included, and the most that the allocator held for
        them. On a CPU how far the process's resident memory rose above what it was before (libraries alone take
        hundreds of megabytes there), and None; both None where the system keeps no mark of the highest, as Linux
        does. It follows the tensors only where `keep_freed_memory` was turned off before the first of them.
    """
    release()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the mark falls to what is resident now
    except OSError:
        return None, None
    before = _high_water()
    run()
    return _high_water() - before, None


def _high_water() -> int:
    """The most resident memory since the mark was reset, bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def seconds(run: Callable[[], object], steps: int) -> list[float]:
    """How long each of `steps` runs takes, after one that warms caches and allocators.

    Each must end by waiting for the GPU, as a training step does by reading its loss.
    """
    run()
    found = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def release() -> None:
    """Give free memory back to the system, and to other processes on the GPU."""
    gc.collect()
    torch.cuda.empty_cache()  # nothing where there is no GPU
    with suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory(keep: bool) -> None:
    """Let glibc keep freed memory for the next allocation, as it does by default, or give it back at once.

    What it keeps made resident memory up to twice what the tensors took, by an amount that changed from run to run.
    Giving it back costs a page fault for every page of every tensor, so it is no way to measure speed.
    """
    mmap, trim = (32 * MIB, 64 * MIB) if keep else (64 * 1024, 0)  # kept: where glibc's own adjustment ends
    with suppress(AttributeError):  # glibc alone has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, mmap)
        mallopt(M_TRIM_THRESHOLD, trim)
