"""Two processes on a CPU give what one gives: losses, gradients, weights."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
import toy  # noqa: F401  (its methods register themselves)
from safetensors.torch import load_file
from test_training import extract_features, losses_of_five_steps, spec, train_arguments
from torch import nn

from cmer.backbones.lite.options import LiteOptions
from cmer.errors import UserError
from cmer.losses.batch.contrastive import contrastive
from cmer.training import distributed
from cmer.training.state import unpacked

TOLERANCE = 1e-5
"""Of losses and weights: both orders of summation are float32's, and some steps of AdamW lie between."""


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)


def start(prepared, run, out, *, processes, program=("-m", "cmer")):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*(launch if processes > 1 else [sys.executable]), *program, *train_arguments(prepared, run, out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def train(prepared, run, out, *, processes):
    process = start(prepared, run, out, processes=processes)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return [json.loads(line) for line in Path(out).with_suffix(".curve.jsonl").read_text().splitlines()]


def cases(prepared):
    """Toys of every kind of scoring, a queue on stored features, training within the towers, trained heads on lite.

    CMPAGL draws masks and negatives within its losses. The batches of seven do not divide evenly.
    """
    stored = {"options": {"text": "lora"}, "batch_size": 7}
    online = {"inputs": "online", "batch_size": 7}
    heads = spec(prepared, "linear_probe", {"projection": {"kind": "mlp"}}, **online)
    lite = LiteOptions(kind="lite", printed="lite", size=64)
    own = {"image_size": 16, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "text_model": "tiny"}
    toys = [spec(prepared, name, **online) for name in ("toy_pairs", "toy_conditioned", "toy_rates")]
    return [
        *toys,
        spec(prepared, **stored),
        spec(prepared, **stored, micro_batch=3),
        spec(prepared, "clip_lora", **online),
        spec(prepared, "cmpagl", own, **online),
        heads.model_copy(update={"backbone": lite}),
    ]


def join(number, folder):
    """Become process `number` of two, as torchrun would say it."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(number), "LOCAL_RANK": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    return distributed.joined(2)


def in_two_processes(function, folder, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (folder / "port").write_text(str(free.getsockname()[1]))
    mp.spawn(function, (folder, *arguments), nprocs=2)
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


def train_shares(number, folder, data, runs):
    with join(number, folder):
        torch.save([losses_of_five_steps(data, run) for run in runs], folder / f"{number}.pt")


def test_two_processes_have_the_losses_of_one(prepared, workspace, tmp_path) -> None:
    expected = [losses_of_five_steps(prepared, run) for run in cases(prepared)]
    assert all(len(set(losses)) == 5 for losses in expected)
    data = SimpleNamespace(pairs=prepared.pairs, folder=prepared.folder)
    for losses in in_two_processes(train_shares, tmp_path, data, cases(prepared)):
        for mine, whole in zip(losses, expected, strict=True):
            assert mine == pytest.approx(whole, abs=TOLERANCE)


def head():
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))})
    model.scale = nn.Parameter(torch.tensor(2.0))  # enters the loss, not the encoding
    return model


def gradients(model, images, texts, shares):
    """Of the contrastive loss over all pairs, of which this process encodes the given ones."""
    items = {"a": model["body"](images), "b": [model["body"](texts)]}
    items = shares.gather(items)
    loss = contrastive(nn.functional.normalize(items["a"]), nn.functional.normalize(items["b"][0]), model.scale)
    loss.backward()
    distributed.average_gradients(model.parameters())
    return [loss.detach(), *(p.grad for p in model.parameters()), *model.buffers()]


def pairs():
    return torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))


def encode_share(number, folder):
    with join(number, folder):
        model = head()
        shares = distributed.Shares(model, seed=0)
        images, texts = pairs()
        own = shares.rows(7)  # four each, the last one filled up with the first pair
        torch.save(gradients(model, images[own], texts[own], shares), folder / f"{number}.pt")


def test_gathered_gradients_and_statistics_are_those_of_one_process(tmp_path) -> None:
    expected = gradients(head(), *pairs(), distributed.Shares(head(), seed=0))
    for found in in_two_processes(encode_share, tmp_path):
        for mine, whole in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, whole, atol=1e-6, rtol=1e-5)


def test_another_number_of_processes_than_the_spec_says_is_refused() -> None:
    with pytest.raises(UserError, match="torchrun --standalone --nproc-per-node 2 -m cmer"), distributed.joined(2):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("run", [0, 1])
def test_torchrun_trains_as_one_process_does(prepared, workspace, run) -> None:
    one = cases(prepared)[run]
    two = one.model_copy(update={"training": one.training.model_copy(update={"processes": 2})})
    curves = [
        train(prepared, one, "one.safetensors", processes=1),
        train(prepared, two, "two.safetensors", processes=2),
    ]
    assert len(curves[0]) == 3
    for mine, theirs in zip(*curves, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
        assert mine["val_mr"] == pytest.approx(theirs["val_mr"], abs=1e-3)
    mine, theirs = load_file("one.safetensors"), load_file("two.safetensors")
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_killed_training_of_two_ends_with_the_same_bytes_and_not_in_one_process(prepared, workspace) -> None:
    run = spec(prepared, epochs=12, processes=2, options={"focus_dropout": 0.2})  # each process draws its own
    train(prepared, run, "whole.safetensors", processes=2)
    process = start(prepared, run, "killed.safetensors", processes=2)
    while not (states := list(Path("work/train").glob("*/state.pt"))):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    state = unpacked(states[0].read_bytes(), states[0])
    assert 0 < state["epoch"] < 12
    alone = start(prepared, run, "killed.safetensors", processes=1)
    assert "training.processes is 2, but 1 started" in alone.communicate()[1]
    fewer = run.model_copy(update={"training": run.training.model_copy(update={"processes": 1})})
    alone = start(prepared, fewer, "killed.safetensors", processes=1)
    assert "is of 2 processes and cannot resume in 1" in alone.communicate()[1]
    resumed = start(prepared, run, "killed.safetensors", processes=2)
    assert f"resuming (epochs done: {state['epoch']}, steps: 0)" in resumed.communicate()[1]
    assert Path("killed.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


FAULT = """
import os, signal
from cmer.cli.main import main
from cmer.errors import UserError
from cmer.training.loop import Trainer
from cmer.training.state import unpacked

step = Trainer.step

def faulty(self, batch):
    if os.environ["RANK"] in "{ranks}" and self.state.step == 1:
        {fault}
    return step(self, batch)

Trainer.step = faulty
main()
"""
ERROR, KILL = "raise UserError('a mistake')", "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "fault", "said", "cause"),
    [
        ("0", ERROR, "a mistake", "a mistake"),
        ("1", ERROR, "a mistake", "a mistake"),
        ("01", ERROR, "a mistake", "a mistake"),
        ("1", KILL, "another process of the training was killed or failed", "SIGKILL"),
    ],
)
def test_a_process_that_fails_ends_the_others_and_one_of_them_says_why(
    prepared, workspace, ranks, fault, said, cause
) -> None:
    Path("faulty.py").write_text(FAULT.format(ranks=ranks, fault=fault))
    process = start(prepared, spec(prepared, processes=2), "out.safetensors", processes=2, program=["faulty.py"])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.findall(r"^.*cmer: .*$", errors, re.M) == [f"cmer: {said}"]
    assert errors.count("Traceback (most recent call last)") == 1, "torchrun's own"
    assert cause in errors[errors.index("Failures:") :]
    assert not Path("out.safetensors").exists()


def test_a_state_of_another_number_of_processes_is_refused(prepared, workspace, monkeypatch) -> None:
    from cmer.training.assembly import assemble
    from cmer.training.loop import Trainer

    run = spec(prepared)

    def trainer():
        ready = assemble(run, prepared.pairs, prepared.folder, Path("features.json"))
        return Trainer(ready.method, ready.inputs, prepared.pairs, run, Path("state.pt"))

    trainer().state.save(Path("state.pt"))
    monkeypatch.setattr("cmer.training.state.process_count", lambda: 2)
    with pytest.raises(UserError, match=r"state\.pt is of 1 processes and cannot resume in 2"):
        trainer()
