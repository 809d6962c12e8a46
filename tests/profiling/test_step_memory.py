"""Bytes kept for the backward pass, and peak memory."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from profiling_cases import spec, step_of
from torch import nn

from cmer.profiling.measure import macs, saved_bytes
from cmer.profiling.step import Model, Step, plain_attention


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


@pytest.mark.skipif(
    torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(), reason="resident memory of a CPU, on Linux"
)
def test_the_peak_is_of_what_was_alive_at_once_and_kept_memory_is_used_again() -> None:
    """In a process of its own, as in a profile: memory that earlier tests freed would count or be reused."""
    code = """
import resource
import torch
from cmer.profiling.measure import keep_freed_memory, peak_bytes
def run():
    for _ in range(3):
        torch.ones(size).add_(1)  # freed before the next
def faults():
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)  # the first runs reach the allocator's steady state
size = 8 * 2**20  # 32 MiB
keep_freed_memory(False)
run()  # loads the library's code, as the steps before a measurement do
print(*peak_bytes(run))
size = 2**20
print(faults())
keep_freed_memory(True)
print(faults())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak, reserved, returned, kept = done.stdout.split()
    assert reserved == "None"
    assert int(peak) == pytest.approx(32 * 2**20, rel=0.1)
    assert int(returned) > 10 * int(kept), "page faults"
