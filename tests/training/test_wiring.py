"""What training, validation and embedding are given, in which mode and order, and what a resumed training restores."""

import json

import numpy as np
import pytest
import torch
from regression import MATRIX, OFFSET, Given, dataset, image_of, interrupt, regression, trainer

from cmer.config.runs import RunSpec
from cmer.retrieval.embed import encode_images, encode_texts
from cmer.retrieval.recall import ranks, recalls

PAIRS = dataset()
VAL = PAIRS.val_images.tolist()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_training_reads_train_images_and_validation_reads_val_images_with_plain_captions(tmp_path, share) -> None:
    """Only a method that never sees a plain caption in training is validated on prompted ones."""
    given = Given()
    made = trainer(regression({"prompt_share": share}), tmp_path / "state.pt", given)
    for batch in made.batches(0):
        made.step(batch)
    assert {image for images, _, _ in given.images for image in images} == set(PAIRS.train_images.tolist())
    assert all(training for _, _, training in given.images)
    assert {image_of(text) for text in given.texts} == set(PAIRS.train_images.tolist())
    prompted = np.mean([text.startswith("pond. ") for text in given.texts])
    assert prompted == share if share != 0.5 else 0.1 < prompted < 0.9

    given.images.clear(), given.texts.clear()
    made.end_epoch()
    assert given.images == [(VAL, [0] * len(VAL), False)]
    captions = PAIRS.captions_of(PAIRS.val_images)
    assert sorted(given.texts) == sorted((PAIRS.prompts if share == 1 else PAIRS.texts)[c] for c in captions)


def test_every_view_of_a_validation_image_counts(tmp_path, monkeypatch) -> None:
    given = Given()
    monkeypatch.setattr(RunSpec, "views", 3)
    made = trainer(regression({}), tmp_path / "state.pt", given)
    made.validate(made.state.snapshot())
    assert given.images == [(VAL, [view] * len(VAL), False) for view in range(3)]


def test_batches_pair_an_image_with_its_own_caption(tmp_path) -> None:
    given = Given()
    made = trainer(regression({"prompt_share": 0.5}), tmp_path / "state.pt", given)
    for batch in made.batches(0):
        given.images.clear(), given.texts.clear()
        made.step(batch)
        assert [image_of(text) for text in given.texts] == given.images[0][0] == batch.images.tolist()
        assert [text.startswith("pond. ") for text in given.texts] == batch.prompted.tolist()
        ids = made.pair_ids(batch)
        assert [PAIRS.texts[text] for text in ids.texts] == [text.removeprefix("pond. ") for text in given.texts]


def test_validation_mr_is_that_of_the_validated_weights(tmp_path) -> None:
    made = trainer(regression({}), tmp_path / "state.pt")
    exact = {"linear.weight": torch.tensor(MATRIX).float(), "linear.bias": torch.tensor(OFFSET).float()}
    assert made.validate(exact) == 100
    weights = made.state.snapshot()
    index = PAIRS.val_images
    with torch.no_grad():
        images = made.method.linear(made.inputs.images(index, index * 0, False))
        captions = PAIRS.captions_of(index)
        scores = -torch.cdist(images, made.inputs.texts([PAIRS.texts[c] for c in captions]))
    expected = recalls(*ranks(scores, np.repeat(np.arange(len(index)), 2))).mr
    assert made.validate(weights) == pytest.approx(expected)
    assert expected < 90


def test_steps_are_in_training_mode_and_validation_is_not(tmp_path) -> None:
    made = trainer(regression({"dropout": 0.5, "norm": True}), tmp_path / "state.pt")
    modes = made.method.modes
    for epoch in range(2):
        for batch in made.batches(epoch):
            made.step(batch)
        assert set(modes) == {True}
        modes.clear()
        made.end_epoch()
        assert set(modes) == {False}
        modes.clear()


def test_validation_leaves_weights_and_statistics_as_they_were(tmp_path) -> None:
    made = trainer(regression({"dropout": 0.5, "norm": True}, ema=0.9), tmp_path / "state.pt")
    for batch in made.batches(0):
        made.step(batch)
    before = {name: tensor.detach().clone() for name, tensor in made.state.trained.items()}
    average, generator = made.state.snapshot(), torch.get_rng_state()
    assert "before.1.running_mean" in before and not torch.equal(average["linear.bias"], before["linear.bias"])
    assert made.validate(average) == made.validate(average)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state.trained.items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert made.state.best == {}


def test_the_average_is_validated_and_kept(tmp_path, monkeypatch) -> None:
    """It covers running statistics as well as weights."""
    made = trainer(regression({"norm": True}, epochs=1, ema=0.9), tmp_path / "state.pt")
    validated = []
    monkeypatch.setattr(made, "validate", lambda weights: validated.append(weights) or 1.0)
    state = made.run()
    assert len(validated) == 1 and set(state.best) == set(state.trained) == set(state.average)
    for name, tensor in state.average.items():
        assert torch.equal(validated[0][name], tensor) and torch.equal(state.best[name], tensor)
        assert not torch.equal(tensor, state.trained[name])


@pytest.mark.parametrize("encode", [encode_images, encode_texts])
def test_an_item_is_encoded_alike_whatever_its_batch(tmp_path, encode) -> None:
    """Neither dropout nor a batch's own statistics play a part, in whatever mode the method was before."""
    made = trainer(regression({"dropout": 0.5, "norm": True}), tmp_path / "state.pt")

    def encoded(ids):
        made.method.train()
        made.method.modes.clear()
        if encode is encode_images:
            (items,) = encode(made.method, made.inputs, np.array(ids), 1, "float32")
        else:
            items, index = encode(made.method, made.inputs, [PAIRS.texts[c] for c in ids], "float32")
            items = items[torch.from_numpy(index)]
        assert set(made.method.modes) == {False} and not items.requires_grad
        return items

    together = encoded([3, 1, 8])
    assert torch.equal(together, torch.cat([encoded([3]), encoded([1]), encoded([8])]))


def test_a_batch_joins_the_memory_after_its_losses_and_its_step(tmp_path) -> None:
    made = trainer(regression({"remembers": True}), tmp_path / "state.pt")
    memory, batches = made.state.memory, made.batches(0)
    enqueue, moved, start = memory.enqueue, [], made.method.linear.bias.detach().clone()

    def noted(*items):
        moved.append(made.method.linear.bias.detach() - start)
        enqueue(*items)

    memory.enqueue = noted
    for batch in batches:
        made.step(batch)
    expected = [(event, batch.images.tolist()) for batch in batches for event in ("losses", "enqueue")]
    assert [(event, images) for event, images, _ in memory.events] == expected
    assert [items.requires_grad for _, _, items in memory.events] == [True, False] * len(batches)
    for (_, _, used), (_, _, added) in zip(memory.events[::2], memory.events[1::2], strict=True):
        assert torch.equal(used, added)
    assert moved[0].abs().min() > 0


@pytest.mark.parametrize("after", [1, 5, 6, 13])
def test_a_training_resumed_after_any_step_ends_as_an_unbroken_one(tmp_path, monkeypatch, after) -> None:
    """Dropout draws from the random generator, BatchNorm keeps statistics, the memory has batches: all are restored."""
    run = regression({"dropout": 0.5, "norm": True, "remembers": True}, ema=0.9)
    whole = trainer(run, tmp_path / "whole.pt").run()
    monkeypatch.setattr("cmer.training.loop.SAVE_EVERY", -1.0)
    interrupt(trainer(run, tmp_path / "state.pt"), monkeypatch, after)
    torch.manual_seed(99)
    torch.rand(7)  # another process would be elsewhere in its random numbers
    resumed = trainer(run, tmp_path / "state.pt")
    assert (resumed.state.epoch, resumed.state.step) == divmod(after, 6)
    found = resumed.run()
    assert found.images_seen == whole.images_seen == 3 * 2 * len(PAIRS.train_images)
    assert json.dumps(found.curve) == json.dumps(whole.curve)
    for part in ("trained", "average", "best"):
        mine, theirs = getattr(found, part), getattr(whole, part)
        assert set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert found.optimizer.state_dict()["state"][0]["step"] == len(found.memory.past) == 18
    assert found.memory.past == whole.memory.past
