"""Work of a worker process: build the method of its row once, then measure its step under each setting."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from cmer.profiling.measure import keep_freed_memory, macs, peak_bytes, release, saved_bytes, seconds
from cmer.profiling.spec import ProfileRow, ProfileSpec, Setting
from cmer.profiling.step import Model, Step

Found = TypeVar("Found")


class Bench:
    """The method of a row in this process. All counts are taken before any timing.

    Raises:
        UserError: the method cannot be built.
    """

    def __init__(self, spec: ProfileSpec, row: ProfileRow) -> None:
        torch.set_num_threads(spec.profile.threads)
        torch.backends.cudnn.allow_tf32 = False  # `paper_like` needs full float32; no other setting uses float32
        keep_freed_memory(spec.count_only)  # only the peak needs it returned, which is slower
        self.spec, self.row = spec, row
        self.model = Model.build(spec, row)
        self.timed: Step | None = None

    def device(self) -> str:
        """The kind of device and its name."""
        if torch.cuda.is_available():
            return f"cuda: {torch.cuda.get_device_name()}"
        with suppress(OSError):  # only Linux has this file
            if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M):
                return f"cpu: {found[1]}"
        return f"cpu: {platform.processor() or platform.machine()}"

    def count(self, setting: Setting, size: int, timed: bool) -> dict[str, Any]:
        """All columns of a row except its speed; None for measurements that did not fit the GPU's memory.

        The peak is measured only if the step will be `timed`, and is None otherwise.
        """
        step = Step(self.model, self.spec, self.row, setting, size)
        # This is the first step, which creates the optimiser's state.
        saved = _if_it_fits(lambda: saved_bytes(step.run, step.kept(), step))
        step.trainer.state.optimizer.zero_grad()
        peak, reserved = (_if_it_fits(lambda: peak_bytes(step.run)) if timed else None) or (None, None)
        forward, backward = _if_it_fits(lambda: macs(step)) or (None, None)
        store = step.store
        counted = {
            "parameters": self.row.options.copies * self.model.method.count(),
            "precision": step.precision,
            "attention": "math" if setting == "paper_like" else "sdpa",
            "tokens": step.tokens.ids.shape[1],
            "saved_bytes": saved,
            "macs_forward": forward,
            "macs_backward": backward,
            "peak_bytes": peak,
            "peak_reserved_bytes": reserved,
            "read_bytes_per_pair": store and store.bytes_per_pair,
            "read_pairs_per_second": store.pairs_per_second() if store and timed else None,
        }
        self._leave(step)
        return counted

    def time(self, setting: Setting, size: int, steps: int) -> list[float]:
        """Seconds of each of `steps` steps; empty if they do not fit the GPU's memory."""
        if self.timed is None or (self.timed.setting, self.timed.size) != (setting, size):
            keep_freed_memory(True)
            self.timed = Step(self.model, self.spec, self.row, setting, size)
        timed = self.timed
        found = _if_it_fits(lambda: seconds(timed.run, steps, self.spec.profile.warmup))
        self._leave(timed)
        return found or []

    @staticmethod
    def _leave(step: Step) -> None:
        """Free memory for the other workers."""
        step.trainer.state.optimizer.zero_grad()
        release()


def _if_it_fits(run: Callable[[], Found]) -> Found | None:
    try:
        return run()
    except torch.OutOfMemoryError:
        pass
    release()  # outside the handler, because the exception holds the step's tensors
    return None
