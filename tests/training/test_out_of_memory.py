"""When memory runs out, the step is repeated in smaller parts, as if nothing had happened."""

from types import SimpleNamespace

import pytest
import torch
from regression import interrupt, regression, trainer
from torch import nn

from cmer.errors import UserError
from cmer.training import out_of_memory
from cmer.training.out_of_memory import within_memory


def limited(run, state_file, fits, monkeypatch):
    """A trainer whose method cannot encode more images than `fits`, after drawing its dropout."""
    made = trainer(run, state_file)
    encode = made.method.encode_images

    def encode_images(batch):
        items = encode(batch)
        if made.method.training and len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return items

    monkeypatch.setattr(made.method, "encode_images", encode_images)
    return made


def assert_equal(mine, other):
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


def test_a_training_that_runs_out_of_memory_is_the_one_with_smaller_parts(tmp_path, monkeypatch, capsys) -> None:
    options = {"dropout": 0.3}
    whole = trainer(regression(options, epochs=2, batch_size=8, micro_batch=2), tmp_path / "whole.pt").run()
    made = limited(regression(options, epochs=2, batch_size=8), tmp_path / "state.pt", 3, monkeypatch)
    found = made.run()
    assert_equal(found.trained, whole.trained)
    assert found.curve == whole.curve
    said = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    assert said == [f"toy: out of memory; now encoding {size} pairs at a time" for size in (4, 2)]


def test_without_draws_it_is_the_one_that_had_enough_memory(tmp_path, monkeypatch) -> None:
    run = regression({}, epochs=2, batch_size=8)
    whole = trainer(run, tmp_path / "whole.pt").run()
    found = limited(run, tmp_path / "state.pt", 1, monkeypatch).run()
    assert found.micro_batch == 1
    for name, tensor in found.trained.items():
        torch.testing.assert_close(tensor, whole.trained[name], rtol=1e-4, atol=1e-5)


def test_a_resumed_training_keeps_the_size_that_fitted(tmp_path, monkeypatch) -> None:
    run = regression({}, epochs=2, batch_size=8)
    monkeypatch.setattr("cmer.training.loop.SAVE_EVERY", 0.0)
    interrupt(limited(run, tmp_path / "state.pt", 2, monkeypatch), monkeypatch, after=1)
    assert trainer(run, tmp_path / "state.pt").state.micro_batch == 2
    other = trainer(regression({}, batch_size=8, micro_batch=4), tmp_path / "other.pt")
    assert other.state.micro_batch == 4


def test_one_pair_at_a_time_that_does_not_fit_ends_with_a_sentence(tmp_path, monkeypatch) -> None:
    made = limited(regression({}, batch_size=8), tmp_path / "state.pt", 0, monkeypatch)
    with pytest.raises(UserError, match=r"one pair at a time; lower training\.batch_size"):
        made.run()


def test_several_processes_end_with_a_sentence(tmp_path, monkeypatch) -> None:
    made = limited(regression({}, batch_size=8), tmp_path / "state.pt", 4, monkeypatch)
    monkeypatch.setattr(out_of_memory, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"set training\.micro_batch to less than 8"):
        made.run()


def test_a_failed_attempt_leaves_no_trace(monkeypatch) -> None:
    """Draws, running statistics and gradients of an attempt that fails in its backward pass."""
    norm = nn.BatchNorm1d(3, affine=False)
    weight = nn.Parameter(torch.ones(3))
    trained = {"weight": weight, "mean": norm.running_mean, "var": norm.running_var}
    state = SimpleNamespace(trained=trained, micro_batch=5, optimizer=torch.optim.SGD([weight]))
    seen = []

    def attempt():
        seen.append((state.micro_batch, torch.rand(1).item(), weight.grad, norm.running_mean.clone()))
        (norm(torch.randn(4, 3)) * weight).square().sum().backward()
        if len(seen) < 3:
            raise torch.OutOfMemoryError
        return "done"

    assert within_memory(attempt, state, "toy", 8) == "done"
    assert [size for size, *_ in seen] == [5, 2, 1]
    assert len({draw for _, draw, *_ in seen}) == 1
    assert all(gradient is None and not mean.any() for *_, gradient, mean in seen)
    assert norm.running_mean.any()
