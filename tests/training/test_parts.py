"""Batches encoded in parts: gradients, statistics and draws are those of the whole batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import toy  # noqa: F401  (its methods register themselves)
from regression import interrupt, regression, trainer
from test_training import extract_features, spec

from cmer.backbones.base import Features
from cmer.backbones.lite.options import LiteOptions
from cmer.errors import UserError
from cmer.features.inputs import Inputs
from cmer.methods.base import StepInfo
from cmer.methods.items import concatenate
from cmer.training.assembly import assemble
from cmer.training.loop import Trainer

LITE = LiteOptions(kind="lite", printed="lite", size=64)
MLP = {"projection": {"kind": "mlp", "dim": 32, "hidden": 48}}
STILL = {"dropout": 0.0, "input_dropout": 0.0}
CASES = {
    "cmer": ("cmer", {}),
    "cmer_lora": ("cmer", {"text": "lora"}),
    "cmer_v1": ("cmer", {"text": "lora", "focus_adapter": False}),
    "linear_probe": ("linear_probe", {}),
    "pe_rsitr": ("pe_rsitr", STILL),
    "toy_conditioned": ("toy_conditioned", {}),
    **{name: (name, {}) for name in ("clip_adapter", "clip_lora", "clip_bitfit", "cross_modal_adapter")},
    "single_language": ("single_language", {}),
}
DRAWING = {
    "cmer": ("cmer", {"focus_dropout": 0.3, "focus_drop_path": 0.3}),
    "pe_rsitr": ("pe_rsitr", {}),
    "toy_conditioned": ("toy_conditioned", {"dropout": 0.3}),
}


@pytest.fixture
def double(monkeypatch):
    """Everything in float64, where the project asks for float32."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(Features, "to", lambda self, _device: self)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def started(prepared, method, options, backbone=None, **training):
    """A trainer whose weights stay as they are, so that gradients of later steps can be compared."""
    run = spec(prepared, method, options, inputs="online", grad_clip=1e9, **training)
    run = run if backbone is None else run.model_copy(update={"backbone": backbone})
    ready = assemble(run, prepared.pairs, prepared.folder, None)
    made = Trainer(ready.method, ready.inputs, prepared.pairs, run, prepared.folder / "never.pt")
    made.state.optimizer.step = lambda: None
    return made


def gradients(made):
    return {name: t.grad.clone() for name, t in made.state.trained.items() if t.grad is not None}


def after_steps(made, steps=2):
    """Losses of some steps, and gradients and statistics of the last one, by when a queue holds a batch."""
    torch.manual_seed(7)
    losses = [made.step(batch) for batch in made.batches(0)[:steps]]
    statistics = {name: t for name, t in made.state.trained.items() if not t.requires_grad}
    return losses, gradients(made), statistics


def assert_same(mine, whole, **tolerance):
    assert mine[0] == pytest.approx(whole[0], rel=1e-9 if not tolerance else tolerance["rtol"])
    for found, expected in zip(mine[1:], whole[1:], strict=True):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_the_gradients_of_parts_are_those_of_the_batch(prepared, double, case) -> None:
    """Batches of six in parts of four and two, or one each; all sums are float64's, in another order."""
    whole = after_steps(started(prepared, *CASES[case]))
    assert whole[1] and max(gradient.abs().max() for gradient in whole[1].values()) > 1e-4
    found = after_steps(started(prepared, *CASES[case], micro_batch=1 if case == "cmer_lora" else 4))
    assert_same(found, whole, rtol=1e-7, atol=1e-11)


def naive(made, size):
    """Gradients of a step that encodes the same parts and keeps all activations."""
    method, batch = made.method.train(), made.batches(0)[0]
    made.state.optimizer.zero_grad()
    torch.manual_seed(7)
    items = []
    for start in range(0, len(batch.images), size):
        part = batch.rows(np.arange(start, min(start + size, len(batch.images))))
        captions = zip(part.captions, part.prompted, strict=True)
        texts = [(made.pairs.prompts if p else made.pairs.texts)[c] for c, p in captions]
        images = method.encode_images(made.inputs.images(part.images, part.views, True))
        items.append((images, method.encode_texts(made.inputs.texts(texts))))
    images, texts = (concatenate([part[side] for part in items]) for side in range(2))
    losses = method.losses(images, texts, made.pair_ids(batch), made.state.memory, StepInfo(0, 9))
    sum(losses.values()).backward()
    return [sum(losses.values()).item()], gradients(made), {}, torch.get_rng_state()


@pytest.mark.parametrize("case", DRAWING)
def test_both_passes_draw_the_same_and_the_second_draws_nothing_new(prepared, double, case) -> None:
    *expected, state = naive(started(prepared, *DRAWING[case]), 2)
    made = started(prepared, *DRAWING[case], micro_batch=2)
    assert_same(after_steps(made, 1), expected, rtol=1e-7, atol=1e-11)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("method", "options"), [("cmer", MLP), ("linear_probe", MLP), ("clip_adapter", MLP), ("pe_rsitr", MLP | STILL)]
)
def test_trained_heads_standardise_over_the_whole_batch(prepared, method, options) -> None:
    """In float32, as lite's weights are; the statistics come from the same sums."""
    whole = after_steps(started(prepared, method, options, LITE))
    assert whole[2], "running statistics"
    found = after_steps(started(prepared, method, options, LITE, micro_batch=4))
    assert_same(found, whole, rtol=2e-3, atol=2e-5)


def test_a_tower_that_standardises_over_the_batch_is_refused(prepared) -> None:
    with pytest.raises(UserError, match=r"ToyPairs standardises .* remove training\.micro_batch"):
        after_steps(started(prepared, "toy_pairs", {}, micro_batch=4))
    after_steps(started(prepared, "toy_pairs", {}, micro_batch=6))  # one part


@pytest.mark.parametrize("stored", [False, True])
def test_towers_run_once_per_pair_and_stored_features_are_read_again(prepared, stored) -> None:
    made, seen = started(prepared, "cmer", {}, micro_batch=2), []
    images, texts = made.inputs.images, made.inputs.texts

    def noted(ids, views, training):
        seen.append(ids.tolist())
        return images(ids, views, training)

    made.inputs = Inputs(noted, texts, stored)
    batch = made.batches(0)[0]
    made.step(batch)
    parts = np.split(batch.images, 3)
    assert seen == [part.tolist() for part in (parts + parts[:2] if stored else parts)]


def test_a_run_on_stored_features_reads_them_again(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)
    assert assemble(spec(prepared), prepared.pairs, prepared.folder, Path("features.json")).inputs.stored


def test_a_training_in_parts_resumes_to_the_same_bytes(tmp_path, monkeypatch) -> None:
    run = regression({"dropout": 0.3}, epochs=4, micro_batch=3)
    whole = trainer(run, tmp_path / "whole.pt").run()
    broken = trainer(run, tmp_path / "state.pt")
    monkeypatch.setattr("cmer.training.loop.SAVE_EVERY", 0.0)
    interrupt(broken, monkeypatch, after=5)
    torch.manual_seed(99)
    resumed = trainer(run, tmp_path / "state.pt").run()
    assert resumed.curve == whole.curve and len(whole.curve) == 4
    assert all(torch.equal(tensor, whole.trained[name]) for name, tensor in resumed.trained.items())
