import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import cache
from multiprocessing import Pipe
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from cmer.backbones.base import Tokens
from cmer.config.base import validate
from cmer.errors import UserError
from cmer.profiling import worker
from cmer.profiling.bench import Bench
from cmer.profiling.measure import flop_counter, macs, saved_bytes, seconds
from cmer.profiling.profile import profile
from cmer.profiling.spec import ProfileSpec
from cmer.profiling.step import Model, Step, plain_attention
from cmer.profiling.worker import Worker

TINY = {"kind": "tiny", "printed": "tiny"}
SMALL = {"hidden": 24, "heads": 2}


def spec(*methods, backbone=TINY, count_only=False, **options):
    rows = [{"run": f"tiny.{m}", "method": m, "options": SMALL if m == "cmer" else {}} for m in methods]
    profile = {"batches": [2, 4], "threads": 1} | options
    given = {"name": "tiny", "backbone": backbone, "rows": rows, "profile": profile, "count_only": count_only}
    return validate(ProfileSpec, given, "spec")


@cache
def model_of(method):
    torch.set_num_threads(1)
    asked = spec(method)
    return Model.build(asked, asked.rows[0])


def step_of(method, setting="today", size=2):
    asked = spec(method)
    return Step(model_of(method), asked, asked.rows[0], setting, size)


# --- saved bytes -------------------------------------------------------------------------------------


def test_a_chain_keeps_what_its_backward_pass_reads() -> None:
    first, second = nn.Linear(8, 16), nn.Linear(16, 4)
    x = torch.randn(5, 8)
    hidden = 5 * 16 * 4  # read by ReLU's and by the second layer's backward pass: one storage
    parameters = [*first.parameters(), *second.parameters()]

    def run():
        second(torch.relu(first(x))).sum()

    assert saved_bytes(run, [x, *parameters]) == hidden
    assert saved_bytes(run, parameters) == hidden + 5 * 8 * 4
    assert saved_bytes(run, [x]) == hidden + 16 * 4 * 4  # the second weight, for the gradient of its input


def test_a_view_keeps_all_of_its_storage() -> None:
    whole, weight = torch.randn(100, 8), nn.Parameter(torch.randn(8, 3))
    assert saved_bytes(lambda: (whole.clone()[:2] @ weight).sum(), [weight]) == 100 * 8 * 4


def test_linear_probe_keeps_nothing_of_the_towers() -> None:
    counts = {
        (setting, size): saved_bytes(step.run, step.kept())
        for setting in ("paper_like", "today")
        for size in (2, 4)
        for step in [step_of("linear_probe", setting, size)]
    }
    assert counts["paper_like", 2] == counts["today", 2]  # 77 tokens or few
    assert 0 < counts["today", 4] - counts["today", 2] < 2 * 17 * 64 * 4  # less than one block's output a pair


@pytest.mark.parametrize("attention", [plain_attention, nullcontext])
def test_an_attention_with_lora_keeps_no_less_than_one_without(attention) -> None:
    rows = spec("clip_adapter", "clip_lora")
    plain, adapted = (Model.build(rows, row).method.backbone for row in rows.rows)
    x = torch.randn(2, 17, 64, requires_grad=True)

    def kept(tower):
        module = tower.model.visual.transformer.resblocks[0].attn
        frozen = module.requires_grad_(False)
        with attention():
            return saved_bytes(lambda: frozen(x, x, x, need_weights=False), [*module.parameters(), x])

    assert kept(adapted) == kept(plain) > 0


def test_the_frozen_image_tower_keeps_nothing_unless_gradients_may_enter_it(monkeypatch) -> None:
    step = step_of("cmer", "paper_like")
    saved, (_, backward) = saved_bytes(step.run, step.kept()), macs(step)
    step.pixels.requires_grad_()
    assert saved_bytes(step.run, step.kept()) == saved
    assert macs(step)[1] == backward
    monkeypatch.setattr(Step, "_frozen", lambda self: nullcontext())
    # Kept, in each of two blocks, at least: the three of attention, its map, and the MLP's inner activations.
    assert saved_bytes(step.run, step.kept()) > saved + 2 * 2 * (3 * 17 * 64 + 2 * 17**2 + 17 * 4 * 64) * 4
    # Gradients of the inputs of every linear map (attention's products have two each), of patches, of the projection.
    tower = 2 * (12 * 17 * 64**2 + 2 * 2 * 17**2 * 64) + 16 * 64 * 192 + 64 * 32
    side_branch = 2 * 17 * 64 * 24  # the map that reads the blocks
    assert macs(step)[1] == backward + 2 * (tower + side_branch)


# --- arithmetic --------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["paper_like", "today"])
def test_macs_of_a_linear_probe_in_closed_form(setting) -> None:
    step = step_of("linear_probe", setting)
    tokens = step.tokens.ids.shape[1]
    assert tokens == {"paper_like": 77, "today": 32}[setting]
    forward, backward = macs(step)
    image = 16 * 64 * (3 * 8 * 8) + tower(17, 64) + 64 * 32
    text = tower(tokens, 48) + 48 * 32
    heads, logits = 2 * 32 * 32, 2 * 2 * 32
    assert forward == 2 * (image + text + heads) + logits
    assert backward == 2 * heads + 2 * logits  # the heads' weights; of the logits both factors


def test_plain_attention_turns_off_the_fused_kernel_of_frozen_attentions() -> None:
    frozen = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(3, 5, 8)
    for attention, expected in ((plain_attention, 3 * (4 * 5 * 8**2 + 2 * 5**2 * 8)), (nullcontext, 0)):
        with flop_counter() as counter, attention():
            frozen(x, x, x, need_weights=False)
        assert counter.get_total_flops() // 2 == expected


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_macs_of_a_convolution_in_groups(groups) -> None:
    convolution = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups)
    x = torch.randn(2, 8, 10, 10, requires_grad=True)
    once = 2 * (5 * 5) * 16 * (8 // groups) * 3 * 3
    with flop_counter() as counter:
        loss = convolution(x).sum()
        forward = counter.get_total_flops() // 2
        loss.backward()
    assert forward == once
    assert counter.get_total_flops() // 2 == 3 * once


def tower(tokens, width):
    """Two blocks: query, key, value, output and MLP (12 width^2 a token), and attention's two products."""
    return 2 * (12 * tokens * width**2 + 2 * tokens**2 * width)


# --- peak memory -------------------------------------------------------------------------------------


@pytest.mark.skipif(
    torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(), reason="resident memory of a CPU, on Linux"
)
def test_the_peak_is_of_what_was_alive_at_once() -> None:
    """In a process of its own, as in a profile: memory that earlier tests freed would count or be reused."""
    code = """
import torch
from cmer.profiling.measure import keep_freed_memory, peak_bytes
keep_freed_memory(False)
def run():
    for _ in range(3):
        torch.ones(8 * 2**20).add_(1)  # 32 MiB each, freed before the next
print(*peak_bytes(run))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak, reserved = done.stdout.split()
    assert reserved == "None"
    assert int(peak) == pytest.approx(32 * 2**20, rel=0.1)


# --- the step ----------------------------------------------------------------------------------------


def test_the_step_trains_and_fills_the_queue() -> None:
    step = step_of("cmer")
    state = step.trainer.state
    before = {name: tensor.detach().clone() for name, tensor in state.trained.items()}
    for _ in range(2):
        step.run()
    assert int(state.memory.filled) == 4
    assert state.optimizer.state
    assert any(not torch.equal(before[name], tensor) for name, tensor in state.trained.items())


def test_batches_of_both_sizes_are_alike() -> None:
    small, large = step_of("cmer", size=2), step_of("cmer", size=4)
    assert torch.equal(small.tokens.ids, large.tokens.ids[:2])
    assert small.batch.prompted.mean() == large.batch.prompted.mean() == 0.5
    assert len({tuple(row) for row in large.tokens.ids.tolist()}) == 4


@pytest.mark.parametrize("backbone", [TINY, {"kind": "lite", "printed": "lite", "size": 64}])
@pytest.mark.parametrize(("setting", "length"), [("paper_like", 77), ("today", 32)])
def test_texts_have_the_settings_length_in_batches_of_any_size(backbone, setting, length) -> None:
    for batches in ([2, 4], [3, 600]):
        asked = spec("linear_probe", backbone=backbone, batches=batches)
        for size in batches:
            step = Step(Model.build(asked, asked.rows[0]), asked, asked.rows[0], setting, size)
            assert step.tokens.ids.shape == step.tokens.mask.shape == (size, length)
            assert step.tokens.mask.all()


def test_towers_with_a_shorter_or_padded_context_keep_it(monkeypatch) -> None:
    model, asked = model_of("linear_probe"), spec("linear_probe")
    for context in (20, 64):
        short = torch.ones(2, context, dtype=torch.bool)
        monkeypatch.setattr(Model, "tokenize", lambda _self, _texts, mask=short: Tokens(mask.long(), mask))
        assert Step(model, asked, asked.rows[0], "today", 2).tokens.ids.shape == (2, context)


def test_warm_up_steps_precede_the_timed_ones_of_every_round(monkeypatch) -> None:
    ran, clock = [], iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) + 10 * len(ran))
    assert seconds(lambda: ran.append(0), 4, 3) == [11] * 4
    assert len(ran) == 7
    asked = spec("linear_probe", warmup=2)
    bench = Bench(asked, asked.rows[0])
    monkeypatch.setattr(Step, "run", lambda _self: ran.append(0))
    for total in (7 + 5, 7 + 10):
        assert len(bench.time("today", 2, 3)) == 3
        assert len(ran) == total


def test_counting_only_measures_no_peak() -> None:
    bench = Bench(spec("clip_adapter"), spec("clip_adapter").rows[0])
    counted = bench.count("today", 2, False)
    assert counted["peak_bytes"] is counted["peak_reserved_bytes"] is None
    assert bench.count("today", 2, True) | {"peak_bytes": None, "peak_reserved_bytes": None} == counted
    assert len(bench.time("today", 2, 3)) == 3


def test_a_pretrained_model_is_profiled_without_its_weights(monkeypatch) -> None:
    given = []
    monkeypatch.setattr("cmer.profiling.step.build_backbone", lambda options: given.append(options) or 1 / 0)
    backbone = {"kind": "open_clip", "model": "ViT-B-32-quickgelu", "pretrained": "openai", "printed": "ViT-B-32"}
    asked = spec("cmer", backbone=backbone)
    with pytest.raises(ZeroDivisionError):
        Model.build(asked, asked.rows[0])
    assert given[0].pretrained is None and given[0].model == "ViT-B-32-quickgelu"


# --- several runs ------------------------------------------------------------------------------------


class Told:
    """A worker without a process: notes what it is asked, and answers by a script."""

    log: ClassVar[list] = []

    def __init__(self, spec, row):
        self.row, self.alive, self.turns = row, True, 0
        Told.log.append(("start", row.run))

    def ask(self, name, *arguments):
        Told.log.append((name, self.row.run, *arguments))
        if name == "device":
            return "cpu: abacus"
        if name == "count":
            size = arguments[1]
            return {"saved_bytes": 1000 + 300 * size, "peak_bytes": 7 if arguments[2] else None}
        self.turns += 1
        return [0.5 * self.turns, 1.0 * self.turns, 9.0]

    def close(self):
        Told.log.append(("close", self.row.run))


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr("cmer.profiling.profile.Worker", Told)
    Told.log = []


def test_runs_take_turns_in_every_round(told) -> None:
    result = profile(spec("cmer", "clip_lora", "clip_adapter", rounds=2, steps=3))
    runs = ["tiny.cmer", "tiny.clip_lora", "tiny.clip_adapter"]
    cases = [(setting, size) for setting in ("paper_like", "today") for size in (2, 4)]
    timed = [entry[1:] for entry in Told.log if entry[0] == "time"]
    assert timed == [(run, *case, 3) for case in cases for _ in range(2) for run in runs]
    calls = [entry[0] for entry in Told.log]
    assert calls.index("time") > max(i for i, call in enumerate(calls) if call == "count")
    assert calls[-3:] == ["close"] * 3
    shown = [(row["run"], row["setting"], row["batch"]) for row in result["rows"]]
    assert shown == [(run, *case) for run in runs for case in cases]
    first = result["rows"][0]
    assert first["method"] == "cmer" and first["options"]["hidden"] == 24
    # Rounds of 0.5, 1, 9 and 1, 2, 9 seconds: medians 1 and 2, and 1.5 of all six.
    speeds = [first["pairs_per_second_low"], first["pairs_per_second"], first["pairs_per_second_high"]]
    assert speeds == [2 / 2, pytest.approx(2 / 1.5), 2 / 1]
    assert first["steps"] == 6
    assert result["device"] == "cpu: abacus"
    assert result["saved"][1] == {
        "run": "tiny.cmer",
        "setting": "today",
        "bytes_per_pair": 300,
        "fixed_bytes": 1000,
    }
    assert len(result["saved"]) == 6


def test_only_the_larger_batch_is_timed_if_asked(told) -> None:
    result = profile(spec("cmer", "clip_lora", timed="larger", rounds=2, batches=[4, 2]))
    assert {entry[3] for entry in Told.log if entry[0] == "time"} == {4}
    assert [entry[3:] for entry in Told.log if entry[0] == "count"] == 2 * (2 * [(4, True)] + 2 * [(2, False)])
    for row in result["rows"]:
        large = row["batch"] == 4
        assert (row["pairs_per_second"] is not None) == (row["peak_bytes"] is not None) == large
        assert row["steps"] == 6 * large
    assert {line["bytes_per_pair"] for line in result["saved"]} == {300}


def test_a_backbone_that_is_only_counted_has_no_memory_and_no_speed(told) -> None:
    result = profile(spec("cmer", "clip_lora", count_only=True))
    empty = ("peak_bytes", "pairs_per_second", "pairs_per_second_low", "pairs_per_second_high")
    assert {row[name] for row in result["rows"] for name in empty} == {None}
    assert {row["steps"] for row in result["rows"]} == {0}
    calls = [entry[0] for entry in Told.log if entry[0] != "count"]
    assert calls == ["start", "device", "close"] * 2  # one process after the other


# --- failures ----------------------------------------------------------------------------------------


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


def test_a_profile_with_gaps_is_whole(told, monkeypatch) -> None:
    def ask(self, name, *arguments):
        if name == "count" and arguments[1] == 4:
            return {"saved_bytes": None, "peak_bytes": None}
        return [] if name == "time" and arguments[1] == 4 else answered(self, name, *arguments)

    answered = Told.ask
    monkeypatch.setattr(Told, "ask", ask)
    result = profile(spec("cmer", settings=["today"]))
    assert [row["pairs_per_second"] is None for row in result["rows"]] == [False, True]
    assert result["saved"] == [{"run": "tiny.cmer", "setting": "today", "bytes_per_pair": None, "fixed_bytes": None}]


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
