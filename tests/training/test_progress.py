"""What a training says while it runs, and when it saves."""

import re
from contextlib import contextmanager

import pytest
from regression import Given, dataset, interrupt, regression, trainer

from cmer.errors import UserError
from cmer.training.validation import validation_images


@pytest.fixture
def shown(monkeypatch):
    """What the bar was opened with, and every advance."""
    calls = []

    @contextmanager
    def bar(*opened):
        calls.append(opened)
        yield lambda *advance: calls.append(advance)

    monkeypatch.setattr("cmer.training.loop.progress", bar)
    return calls


def test_a_resumed_training_says_where_it_resumes(tmp_path, monkeypatch, capsys, shown) -> None:
    monkeypatch.setattr("cmer.training.loop.SAVE_EVERY", -1.0)
    interrupt(trainer(regression({}), tmp_path / "state.pt"), monkeypatch, 8)
    assert "resuming" not in capsys.readouterr().err and shown[0] == ("toy", 18, 0)
    shown.clear()
    trainer(regression({}), tmp_path / "state.pt").run()
    assert capsys.readouterr().err.startswith("toy: resuming (epochs done: 1, steps: 2)\n")
    assert shown[0] == ("toy", 18, 8) and len(shown) == 1 + 10


def test_progress_shows_epoch_loss_and_the_newest_validation(tmp_path, monkeypatch, shown) -> None:
    made = trainer(regression({}, epochs=4, validate_every=2), tmp_path / "state.pt")
    values, losses, step = iter([12.345, 50.0]), [], made.step
    monkeypatch.setattr(made, "validate", lambda _: next(values))
    monkeypatch.setattr(made, "step", lambda batch: losses.append(step(batch)) or losses[-1])
    made.run()
    assert len(shown) == 1 + 24 == 1 + len(losses)
    for number, (loss, (count, note)) in enumerate(zip(losses, shown[1:], strict=True)):
        mr = "" if number < 12 else r"val mR 12\.35?  "
        assert count == 1
        assert re.fullmatch(rf"epoch {number // 6 + 1}  loss {loss:.3f}  {mr}\d+ pairs/s", note)


def test_speed_counts_the_pairs_of_this_process_and_epoch(tmp_path, monkeypatch, shown) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("cmer.training.loop.time.monotonic", lambda: float(next(clock)))
    trainer(regression({}, epochs=2), tmp_path / "state.pt").run()
    assert [note.rsplit("  ", 1)[1] for _, note in shown[1:]] == ["4 pairs/s"] * 12


def test_the_state_is_saved_after_every_epoch_and_when_time_has_passed(tmp_path, monkeypatch, shown) -> None:
    clock = iter(range(0, 100_000, 10))
    monkeypatch.setattr("cmer.training.loop.time.monotonic", lambda: float(next(clock)))
    made = trainer(regression({}, epochs=2), tmp_path / "state.pt")
    saved, save = [], made.state.save
    monkeypatch.setattr(made.state, "save", lambda path: saved.append((made.state.step, path)) or save(path))
    made.run()
    file = tmp_path / "state.pt"
    assert saved == [(4, file), (0, file)] * 2, "the fourth step is the first over 30 s after the epoch's start"


def test_a_loss_that_is_not_finite_names_run_and_epoch(tmp_path) -> None:
    made = trainer(regression({}), tmp_path / "state.pt")
    made.state.epoch = 1
    made.method.linear.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"^the loss of toy is nan in epoch 2; lower training\.lr$"):
        made.step(made.batches(1)[0])


def test_the_fixed_subsample_of_validation_images_is_drawn_once(tmp_path) -> None:
    pairs = dataset()
    drawn = validation_images(pairs, 2).tolist()
    assert len(drawn) == 2 and drawn == sorted(drawn) and set(drawn) < set(pairs.val_images.tolist())
    for asked, expected in ((3, 3), (4, 4), (9, 4), (None, 4)):
        assert len(validation_images(pairs, asked)) == expected
    given = Given()
    trainer(regression({}, validation_images=2), tmp_path / "state.pt", given).end_epoch()
    assert given.images == [(drawn, [0, 0], False)]


@pytest.mark.parametrize(("every", "validated"), [(1, [1, 2, 3, 4, 5]), (3, [3, 5]), (5, [5]), (9, [5])])
def test_validation_is_due_every_few_epochs_and_after_the_last(tmp_path, monkeypatch, every, validated) -> None:
    made = trainer(regression({}, epochs=5, validate_every=every), tmp_path / "state.pt")
    monkeypatch.setattr(made, "validate", lambda _: 12.345678)
    curve = made.run().curve
    assert [entry["epoch"] for entry in curve] == [1, 2, 3, 4, 5]
    assert {entry["epoch"]: entry["val_mr"] for entry in curve if "val_mr" in entry} == dict.fromkeys(
        validated, 12.3457
    )
    assert all(entry["loss"]["squares"] == round(entry["loss"]["squares"], 6) for entry in curve)
