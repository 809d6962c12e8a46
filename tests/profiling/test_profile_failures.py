"""Runs that cannot be measured."""

import gc
import os
import signal
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import ClassVar
from weakref import ref

import pytest
import torch
from profiling_cases import spec

from cmer.errors import UserError
from cmer.profiling import worker
from cmer.profiling.bench import Bench
from cmer.profiling.measure import saved_bytes
from cmer.profiling.profile import profile
from cmer.profiling.step import Step
from cmer.profiling.worker import Worker


class Killed(Worker):
    """The second run's process is killed when it is asked, as the system does that lacks memory."""

    started: ClassVar[list] = []

    def __init__(self, spec, row):
        super().__init__(spec, row)
        Killed.started.append(self.process)

    def ask(self, name, *arguments):
        if self.row.method == "cmer":
            return {}
        os.kill(self.process.pid, signal.SIGKILL)
        return super().ask(name, *arguments)


def test_a_killed_process_is_named_and_ends_the_others(monkeypatch) -> None:
    monkeypatch.setattr("cmer.profiling.profile.Worker", Killed)
    with pytest.raises(UserError, match=r"tiny\.clip_lora on tiny failed: .*SIGKILL.*memory"):
        profile(spec("cmer", "clip_lora"))
    assert len(Killed.started) == 2
    assert not any(process.is_alive() for process in Killed.started)
    assert all(process.daemon for process in Killed.started), "the command's end would wait for them"


@pytest.mark.parametrize(("code", "said"), [(0, "exit status 0"), (1, "exit status 1"), (-signal.SIGTERM, "SIGTERM")])
def test_the_end_of_a_process_is_described(code, said) -> None:
    told = Worker.__new__(Worker)
    told.what, told.process = "tiny.cmer on tiny", SimpleNamespace(join=lambda: None, exitcode=code)
    told.connection, theirs = Pipe()
    theirs.close()
    with pytest.raises(UserError, match=f"^profiling tiny.cmer on tiny failed: .*{said}"):
        told.ask("device")


def answer_of(monkeypatch, asked):
    """What a worker's process says of the first row before it ends."""
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)  # this process keeps its Ctrl-C
    ours, theirs = Pipe()
    worker.serve(theirs, asked, asked.rows[0])
    return str(ours.recv())


def test_what_cannot_be_built_says_why(monkeypatch) -> None:
    assert "zero_shot trains nothing" in answer_of(monkeypatch, spec("zero_shot"))
    unknown = {"kind": "open_clip", "model": "ViT-B-23", "printed": "ViT-B-23"}
    assert "close names are ViT-B-32" in answer_of(monkeypatch, spec("cmer", backbone=unknown))


def test_what_does_not_fit_a_gpus_memory_is_a_gap_in_the_row(monkeypatch) -> None:
    asked = spec("clip_adapter", settings=["today"])
    bench = Bench(asked, asked.rows[0])
    whole = bench.count("today", 2, True)

    def full(self):
        if self.size > 2:
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")
        step(self)

    step = Step.run
    monkeypatch.setattr(Step, "run", full)
    large = bench.count("today", 4, True)
    gaps = ("saved_bytes", "macs_forward", "macs_backward", "peak_bytes", "peak_reserved_bytes")
    assert {name: large[name] for name in gaps} == dict.fromkeys(gaps)
    assert large["parameters"] == whole["parameters"]
    assert bench.time("today", 4, 2) == []
    assert len(bench.time("today", 2, 2)) == 2
    assert bench.count("today", 2, True)["saved_bytes"] == whole["saved_bytes"]


def test_a_step_that_does_not_fit_leaves_no_tensor_behind() -> None:
    made = []

    def run() -> None:
        made.append(ref(torch.ones(8, requires_grad=True).exp()))  # exp keeps its own output
        raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        saved_bytes(run, [])
    gc.collect()
    assert made[0]() is None


def test_a_mistake_of_ours_is_passed_on(monkeypatch) -> None:
    def broken(self):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Bench, "device", broken)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    ours, theirs = Pipe()
    ours.send(("device", ()))
    asked = spec("linear_probe")
    with pytest.raises(ZeroDivisionError):
        worker.serve(theirs, asked, asked.rows[0])
    assert str(ours.recv()) == "ZeroDivisionError: division by zero"


def test_a_failure_names_its_row() -> None:
    told = Worker.__new__(Worker)
    told.what = "tiny.cmer on tiny"
    told.connection, theirs = Pipe()
    theirs.send(UserError("ZeroDivisionError: division by zero"))
    with pytest.raises(UserError, match=r"^profiling tiny\.cmer on tiny failed: ZeroDivisionError: division by zero$"):
        told.ask("count", "today", 2, True)
