"""What a worker's process does for its row: build it once, then measure its step setting by setting."""

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
    """A row's method in this process. Everything is counted before anything is timed.

    Raises:
        UserError: the method cannot be built.
    """

    def __init__(self, spec: ProfileSpec, row: ProfileRow) -> None:
        torch.set_num_threads(spec.profile.threads)
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32 under `paper_like`; no other step has float32
        keep_freed_memory(False)
        self.spec, self.row = spec, row
        self.model = Model.build(spec, row)
        self.timed: Step | None = None

    def device(self) -> str:
        """The kind of device and its name."""
        if torch.cuda.is_available():
            return f"cuda: {torch.cuda.get_device_name()}"
        with suppress(OSError):  # Linux has it; elsewhere Python's own word must do
            if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M):
                return f"cpu: {found[1]}"
        return f"cpu: {platform.processor() or platform.machine()}"

    def count(self, setting: Setting, size: int, timed: bool) -> dict[str, Any]:
        """All of a row of the file but its speed; null is what did not fit a GPU's memory.

        The peak is measured where the step will be `timed`, else null too.
        """
        step = Step(self.model, self.spec, self.row, setting, size)
        # The first step: from then on the optimiser has its state.
        saved = _if_it_fits(lambda: saved_bytes(step.run, step.kept()))
        step.trainer.state.optimizer.zero_grad()
        peak, reserved = (_if_it_fits(lambda: peak_bytes(step.run)) if timed else None) or (None, None)
        forward, backward = _if_it_fits(lambda: macs(step)) or (None, None)
        counted = {
            "parameters": self.model.method.count(),
            "precision": step.precision,
            "attention": "math" if setting == "paper_like" else "sdpa",
            "tokens": step.tokens.ids.shape[1],
            "saved_bytes": saved,
            "macs_forward": forward,
            "macs_backward": backward,
            "peak_bytes": peak,
            "peak_reserved_bytes": reserved,
        }
        self._leave(step)
        return counted

    def time(self, setting: Setting, size: int, steps: int) -> list[float]:
        """Seconds of each of `steps` steps; none where they do not fit a GPU's memory."""
        if self.timed is None or (self.timed.setting, self.timed.size) != (setting, size):
            keep_freed_memory(True)
            self.timed = Step(self.model, self.spec, self.row, setting, size)
        timed = self.timed
        found = _if_it_fits(lambda: seconds(timed.run, steps))
        self._leave(timed)
        return found or []

    @staticmethod
    def _leave(step: Step) -> None:
        """Make room for the workers whose turn comes."""
        step.trainer.state.optimizer.zero_grad()
        release()


def _if_it_fits(run: Callable[[], Found]) -> Found | None:
    try:
        return run()
    except torch.OutOfMemoryError:
        pass
    release()  # only now: the error held the step's tensors
    return None
