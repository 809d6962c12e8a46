"""A training that is interrupted and resumed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_training import call, train_arguments

from cmer.training.loop import Trainer
from cmer.training.state import unpacked


class Interrupted(Exception):
    """Stands for a kill."""


@contextmanager
def interrupted_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The training in the block saves its state at every step, and is interrupted after so many."""
    done: list[object] = []
    step = Trainer.step

    def interrupted(self, batch):
        if len(done) == steps:
            raise Interrupted
        done.append(batch)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr("cmer.training.loop.SAVE_EVERY", -1.0)
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(Interrupted):
            yield


def resumed_with_the_same_bytes(prepared, run, monkeypatch, steps, name="state.pt") -> dict[str, Any]:
    """Train a run, and again with an interruption after so many steps; both leave equal bytes, and no state.

    Returns:
        The state of the interrupted training, in the file of this name in work/train of the working folder.
    """
    call(*train_arguments(prepared, run, "whole.safetensors"))
    with interrupted_after(steps, monkeypatch):
        call(*train_arguments(prepared, run))
    (file,) = Path("work/train").glob(f"*/{name}")
    state = unpacked(file.read_bytes(), file)
    call(*train_arguments(prepared, run))
    assert not list(Path("work/train").rglob("*.pt"))
    assert Path("checkpoint.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    return state
