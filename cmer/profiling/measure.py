"""Measurements of a training step: bytes kept for the backward pass, arithmetic, peak memory and time."""

from __future__ import annotations

import ctypes
import gc
import math
import re
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from cmer.backbones.base import Features
from cmer.methods.base import Method
from cmer.profiling.recurrent import cudnn_rnn, cudnn_rnn_backward
from cmer.profiling.step import Step, ignore, plain_attention

MIB = 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Values of these constants in glibc's malloc.h."""


class Live:
    """Bytes of storages that are held at one time, and their maximum; each storage counts once and in full.

    Args:
        known: tensors that stay in memory anyway; their storages do not count.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.users = Counter({_name(tensor.untyped_storage()): 1 for tensor in known})
        self.bytes = self.most = 0

    def hold(self, tensor: Tensor) -> Held:
        """Count the tensor's storage for as long as the returned object lives."""
        return Held(self, tensor)

    def watch(self, features: Features) -> None:
        """Count features for as long as they live."""
        held = [self.hold(tensor) for tensor in (features.pooled, *features.blocks.values())]
        weakref.finalize(features, held.clear)

    def change(self, storage: torch.UntypedStorage, users: int) -> None:
        """Add one user to a storage, or take one away."""
        name = _name(storage)
        before, self.users[name] = self.users[name], self.users[name] + users
        self.bytes += storage.nbytes() * (bool(self.users[name]) - bool(before))
        self.most = max(self.most, self.bytes)


def _name(storage: torch.UntypedStorage) -> int:
    """The storage's own address, as a storage without memory has none of its data."""
    return int(storage._cdata)


class Held:
    """A tensor that `Live` counts; it keeps the storage, so that no address is reused.

    It is detached: if a tensor's own graph held it, only a backward pass would free it, which a step may not reach.
    """

    def __init__(self, live: Live, tensor: Tensor) -> None:
        self.live, self.tensor = live, tensor.detach()
        live.change(tensor.untyped_storage(), 1)

    def __del__(self) -> None:
        """Take the storage's user away."""
        self.live.change(self.tensor.untyped_storage(), -1)


def saved_bytes(run: Callable[[], object], kept: Iterable[Tensor], step: Step | None = None) -> int:
    """Most bytes that are kept at one time for backward passes of the computations in `run`.

    Each storage counts once and in full, because a view keeps the whole storage in memory. The storages of the tensors
    in `kept`, which stay in memory anyway, do not count.

    Args:
        run: what is measured.
        kept: tensors that do not count.
        step: the step that `run` runs; its frozen towers' outputs count for as long as it keeps them.
    """
    live = Live(kept)
    if step is not None:
        step.watch = live.watch
    with saved_tensors_hooks(live.hold, lambda held: held.tensor):
        run()
    if step is not None:
        step.watch = ignore
    return live.most


def macs(step: Step) -> tuple[int, int]:
    """Multiply-accumulates of a step's matrix products and convolutions: up to the losses, and after them.

    Attention is always plain here, because the counter does not support fused CPU kernels.
    """
    marks: list[int] = []
    counter = flop_counter()
    noted = _after_losses(step.model.method, lambda: marks.append(counter.get_total_flops()))
    with counter, noted, plain_attention():
        step.run()
    (forward,) = marks
    return forward // 2, (counter.get_total_flops() - forward) // 2


def flop_counter() -> FlopCounterMode:
    """PyTorch's FLOP counter (two FLOPs per multiply-accumulate), with grouped convolutions corrected and cuDNN's GRUs.

    Its own formula for the gradient of their weights ignores the groups: for a depthwise convolution with 32 channels
    the result is 32 times too large.
    """
    added = {
        torch.ops.aten.convolution_backward: _convolution_backward,
        torch.ops.aten._cudnn_rnn: cudnn_rnn,
        torch.ops.aten._cudnn_rnn_backward: cudnn_rnn_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=added)


def _convolution_backward(
    outputs: Sequence[int], _inputs: Sequence[int], weight: Sequence[int], *arguments: Any, out_shape: Any
) -> int:
    """FLOPs from the shapes of the gradient [B, out, ...] and of the weight [out, in / groups, ...].

    The gradients of the inputs and of the weight each cost as much as the convolution itself; the last of `arguments`
    says which of them are requested.
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
        On a GPU: peak memory of all tensors, including those allocated before, and peak memory reserved by the
        allocator. On a CPU: how far the process's resident memory rose above its value before (which includes hundreds
        of megabytes for libraries), and None. Both are None on systems without a resettable high-water mark, which
        Linux has. On a CPU, the peak reflects the tensors only if `keep_freed_memory(False)` was called before the
        first allocation.
    """
    release()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark to the current value
    except OSError:
        return None, None
    before = _high_water()
    run()
    return _high_water() - before, None


def _high_water() -> int:
    """Peak resident memory since the mark was reset, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def seconds(run: Callable[[], object], steps: int, warmup: int) -> list[float]:
    """Duration of each of `steps` runs, after `warmup` runs that warm up caches and allocators.

    `run` must wait for the GPU before it returns, as a training step does by reading its loss.
    """
    for _ in range(warmup):
        run()
    found = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def release() -> None:
    """Return free memory to the system, and to other processes on the GPU."""
    gc.collect()
    torch.cuda.empty_cache()  # has no effect without a GPU
    with suppress(AttributeError):  # only glibc has this function
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory(keep: bool) -> None:
    """Let glibc keep freed memory for the next allocation, as it does by default, or return it to the system at once.

    With kept memory, resident memory was up to twice that of the tensors, by an amount that varied from run to run.
    Returning it costs a page fault for every page of every tensor, so this mode is unsuitable for timing.
    """
    mmap, trim = (32 * MIB, 64 * MIB) if keep else (64 * 1024, 0)  # keep: upper limits of glibc's own adjustment
    with suppress(AttributeError):  # only glibc has this function
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, mmap)
        mallopt(M_TRIM_THRESHOLD, trim)
