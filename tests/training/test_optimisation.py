"""The optimisation of a linear regression against its closed form and against AdamW written out."""

import math

import numpy as np
import pytest
import torch
from regression import MATRIX, OFFSET, POINTS, TARGETS, image_of, regression, trainer

from cmer.training.optimizer import schedule


def weights(trained):
    return {name: tensor.detach().double().numpy().copy() for name, tensor in trained.items()}


def factors(total, rise):
    """The schedule written out: a rise over `rise` steps, then a half cosine."""
    fall = [0.5 * (1 + math.cos(math.pi * step / (total - rise))) for step in range(total - rise)]
    return [(step + 1) / rise for step in range(rise)] + fall


def test_a_constant_gradient_moves_weights_by_the_scheduled_rate_and_shrinks_only_matrices(tmp_path) -> None:
    """AdamW divides a constant gradient by its size, so each step moves every weight by the learning rate."""
    run = regression({"loss": "slope"}, epochs=2, lr=0.01, weight_decay=0.5, warmup=0.25)
    made = trainer(run, tmp_path / "state.pt")
    before = weights(made.state.trained)
    total = 2 * made.steps
    made.run()
    weight, rates = before["linear.weight"], [0.01 * factor for factor in factors(total, round(total / 4))]
    for rate in rates:
        weight = weight * (1 - rate * 0.5) - rate
    after = weights(made.state.trained)
    assert total == 12
    assert after["linear.bias"] == pytest.approx(before["linear.bias"] - sum(rates), abs=1e-5)
    assert after["linear.weight"] == pytest.approx(weight, abs=1e-5)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_is_adamw_written_out(tmp_path, monkeypatch, ema) -> None:
    """Gradients are clipped at first, when they are large, and no longer once they are small."""
    run = regression({}, epochs=6, lr=0.1, weight_decay=0.2, warmup=0.2, grad_clip=8.0, ema=ema)
    made = trainer(run, tmp_path / "state.pt")
    monkeypatch.setattr(made, "validate", lambda _: float(made.state.epoch))  # the last epoch is the best
    now = weights(made.state.trained)
    average = {name: value.copy() for name, value in now.items()}
    first, second = ({name: np.zeros_like(value) for name, value in now.items()} for _ in range(2))
    batches = [batch for epoch in range(6) for batch in made.batches(epoch)]
    norms = []
    for step, (batch, factor) in enumerate(zip(batches, factors(36, 7), strict=True), start=1):
        x, y = POINTS[batch.images], TARGETS[batch.images]
        error = 2 * (x @ now["linear.weight"].T + now["linear.bias"] - y) / len(x)
        gradients = {"linear.weight": error.T @ x, "linear.bias": error.sum(axis=0)}
        norms.append(math.sqrt(sum((gradient**2).sum() for gradient in gradients.values())))
        for name, gradient in gradients.items():
            clipped = gradient * min(1, 8 / norms[-1])
            first[name] = 0.9 * first[name] + 0.1 * clipped
            second[name] = 0.999 * second[name] + 0.001 * clipped**2
            mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            decay = 0.2 if name == "linear.weight" else 0
            now[name] = now[name] * (1 - 0.1 * factor * decay) - 0.1 * factor * mean / (np.sqrt(square) + 1e-8)
            average[name] = ema * average[name] + (1 - ema) * now[name]
    found = made.run()
    assert norms[0] > 8 > norms[-1]
    for name, value in weights(found.trained).items():
        assert value == pytest.approx(now[name], abs=1e-4)
        assert found.best[name].numpy() == pytest.approx(average[name], abs=1e-4)
    assert [(step.step, step.total) for step in made.method.steps] == [(step, 36) for step in range(36)]


def test_training_finds_the_optimum(tmp_path) -> None:
    found = trainer(regression({}, epochs=150, lr=0.2, weight_decay=0.0), tmp_path / "state.pt").run()
    assert found.trained["linear.weight"].detach().numpy() == pytest.approx(MATRIX, abs=1e-3)
    assert found.trained["linear.bias"].detach().numpy() == pytest.approx(OFFSET, abs=1e-3)
    assert found.curve[-1]["val_mr"] == 100.0


def test_the_average_follows_the_weights_slowly(tmp_path) -> None:
    made = trainer(regression({}, ema=0.75), tmp_path / "state.pt")
    start = weights(made.state.trained)
    made.step(made.batches(0)[0])
    end = weights(made.state.trained)
    for name, value in weights(made.state.average).items():
        assert value == pytest.approx(0.75 * start[name] + 0.25 * end[name], abs=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(tmp_path) -> None:
    made = trainer(regression({}, epochs=1), tmp_path / "state.pt")
    losses = [made.step(batch) for batch in made.batches(0)]
    made.end_epoch()
    assert made.state.curve[0]["loss"]["squares"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_the_weights_of_the_best_epoch_are_kept(tmp_path, monkeypatch) -> None:
    made = trainer(regression({}, epochs=4), tmp_path / "state.pt")
    validated, values = [], iter([1.0, 3.0, 2.0, 3.0])

    def validate(snapshot):
        validated.append({name: tensor.clone() for name, tensor in snapshot.items()})
        return next(values)

    monkeypatch.setattr(made, "validate", validate)
    best = made.run().best
    assert [entry["val_mr"] for entry in made.state.curve] == [1.0, 3.0, 2.0, 3.0]
    assert all(torch.equal(tensor, validated[1][name]) for name, tensor in best.items())
    assert not torch.equal(best["linear.bias"], validated[2]["linear.bias"])


def test_the_dataset_is_what_the_closed_forms_assume() -> None:
    assert image_of("pond. caption 7") == 3
    assert pytest.approx(TARGETS) == POINTS @ MATRIX.T + OFFSET


@pytest.mark.parametrize(("warmup", "rise"), [(0.0, 1), (0.04, 1), (0.3, 3), (0.9, 9), (1.0, 10)])
def test_the_schedule_is_a_rise_of_at_least_one_step_and_half_a_cosine(warmup, rise) -> None:
    assert [schedule(step, 10, warmup) for step in range(10)] == pytest.approx(factors(10, rise))
