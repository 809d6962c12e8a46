"""Reading ahead: what a loop needs next is read while it works on the present."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


def read_ahead(read: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Yield `read(item)` of each item, in order; one background thread reads the next item meanwhile.

    Errors of `read` are raised where their item would be yielded. The thread uses the GPU of the caller.
    """
    gpu = torch.cuda.current_device() if torch.cuda.is_available() else None
    with ThreadPoolExecutor(1, initializer=_use, initargs=(gpu,)) as pool:
        waiting: Future[Found] | None = None
        for item in items:
            following = pool.submit(read, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _use(gpu: int | None) -> None:
    if gpu is not None:
        torch.cuda.set_device(gpu)
