"""A training with a bank: when it is refreshed, with what, by which weights, and what a resumed training restores."""

import json
from pathlib import Path

import pytest
import torch
from interruption import interrupted_after
from test_training import extract_features, spec

from cmer.losses.infonce import contrastive_with
from cmer.training.assembly import assemble
from cmer.training.loop import Trainer

BANK = {"linear_probe": {}, "cmer": {"queue_batches": 0, "focus_dropout": 0.3}}


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)


def made(prepared, method, refresh, state="state.pt", **training):
    options = BANK[method] | {"bank_refresh": refresh, "soft_multi_positive": True}
    run = spec(prepared, method, options, epoch_of="images", **training)
    ready = assemble(run, prepared.pairs, prepared.folder, Path("features.json"))
    return Trainer(ready.method, ready.inputs, prepared.pairs, run, Path(state))


@pytest.mark.parametrize("method", sorted(BANK))
def test_a_refresh_embeds_every_train_image_with_a_caption_of_its_own(prepared, workspace, method) -> None:
    trainer = made(prepared, method, 2)
    pairs, bank, batches = prepared.pairs, trainer.state.memory, trainer.batches(0)
    trainer.step(batches[0])
    assert bank.filled == 0
    trainer.step(batches[1])
    assert sorted(bank.image_ids.tolist()) == pairs.train_images.tolist()
    assert bank.labels.tolist() == pairs.labels[bank.image_ids].tolist()
    texts = list(trainer.text_ids)
    for image, text in zip(bank.image_ids.tolist(), bank.text_ids.tolist(), strict=True):
        assert texts[text] in [pairs.texts[caption] for caption in pairs.captions_of([image])]
    drawn = trainer.bank_batches(2)
    assert torch.equal(bank.image_ids, torch.cat([torch.from_numpy(batch.images) for batch in drawn]))
    trainer.method.eval()
    with torch.no_grad():
        images = [trainer.method.encode_images(trainer.inputs.images(b.images, b.views, False)) for b in drawn]
        captions = [
            trainer.method.encode_texts(
                trainer.inputs.texts(
                    [(pairs.prompts if p else pairs.texts)[c] for c, p in zip(b.captions, b.prompted, strict=True)]
                )
            )
            for b in drawn
        ]
    assert torch.allclose(bank.images, torch.cat(images), atol=1e-5)
    assert torch.allclose(bank.texts, torch.cat(captions), atol=1e-5)
    before = bank.texts.clone(), bank.text_ids.clone()
    trainer.step(batches[2])
    assert torch.equal(bank.texts, before[0])  # a batch is not added
    trainer.step(batches[3])
    assert not torch.equal(bank.text_ids, before[1])  # other captions are drawn


@pytest.mark.parametrize("method", sorted(BANK))
def test_the_loss_of_a_step_has_the_banks_entries(prepared, workspace, monkeypatch, method) -> None:
    trainer, seen = made(prepared, method, 1), []
    losses = trainer.method.losses

    def noted(images, texts, ids, memory, step):
        found = losses(images, texts, ids, memory, step)
        arguments = (images, texts, trainer.method.heads.scale(), ids.positives(), memory, ids)
        seen.append((found["batch"].item(), contrastive_with(*arguments).item(), memory.negatives(ids).any().item()))
        assert set(found) == {"batch"}
        return found

    monkeypatch.setattr(trainer.method, "losses", noted)
    for batch in trainer.batches(0)[:2]:
        trainer.step(batch)
    assert [used for _, _, used in seen] == [False, True]
    assert all(found == expected for found, expected, _ in seen)


def test_the_curve_has_the_age_of_the_entries(prepared, workspace) -> None:
    trainer = made(prepared, "linear_probe", 3, epochs=2)
    steps = trainer.steps
    curve = trainer.run().curve
    ages = [step % 3 for step in range(2 * steps)]
    assert curve[0]["bank_age"] == pytest.approx(sum(ages[3:steps]) / (steps - 3), abs=0.01)
    assert curve[1]["bank_age"] == pytest.approx(sum(ages[steps:]) / steps, abs=0.01)
    late = made(prepared, "linear_probe", 10**6, "late.pt", epochs=1).run().curve
    assert "bank_age" not in late[0]


@pytest.mark.parametrize("after", [2, 3, 7])
def test_a_training_with_a_bank_resumes_as_if_it_had_not_stopped(prepared, workspace, monkeypatch, after) -> None:
    whole = made(prepared, "cmer", 3, "whole.pt").run()
    with interrupted_after(after, monkeypatch):
        made(prepared, "cmer", 3).run()
    torch.manual_seed(99)
    resumed = made(prepared, "cmer", 3)
    assert resumed.state.epoch * resumed.steps + resumed.state.step == after
    assert bool(resumed.state.memory.filled) == (after >= 3)
    found = resumed.run()
    assert json.dumps(found.curve) == json.dumps(whole.curve)
    assert all(torch.equal(found.trained[name], tensor) for name, tensor in whole.trained.items())
    assert all(torch.equal(*both) for both in zip(found.memory.tensors(), whole.memory.tensors(), strict=True))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("linear_probe", {"loss": "optimised_triplet"}, "bank_refresh: 5 needs `loss: contrastive`"),
        ("cmer", {"queue_batches": 2}, "bank_refresh: 5 needs `queue_batches: 0`"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused(prepared, method, options, message) -> None:
    with pytest.raises(Exception, match=message):
        spec(
            prepared,
            method,
            {"bank_refresh": 5, "queue_batches": 0} | options if method == "cmer" else {"bank_refresh": 5} | options,
        )
