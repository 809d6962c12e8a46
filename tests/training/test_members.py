"""Ensembles in training: members are runs of their own, selected alone and scored together."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from interruption import resumed_with_the_same_bytes
from safetensors.torch import load_file
from test_training import call, embed, evaluate, spec, train_arguments, workspace  # noqa: F401

from cmer.provenance import stored_record
from cmer.retrieval.recall import ranks, recalls
from cmer.training.assembly import assemble
from cmer.training.checkpoint import load_tensors
from cmer.training.validation import validation_images

MEMBERS = {"queue_batches": 1, "focus_dropout": 0.2}
SEEDS = (0, 1000, 2000)
SHORT = {"ema": 0.5, "epochs": 1, "lr": 0.0005}


@pytest.fixture
def trained(prepared, workspace):  # noqa: F811
    """An ensemble of three and its members as runs of their own; the weights are averaged, dropout is on.

    The training is so short that validation tells the ensemble and its members apart.
    """
    run = spec(prepared, options=MEMBERS | {"members": 3}, **SHORT)
    call(*train_arguments(prepared, run))
    alone = spec(prepared, options=MEMBERS, **SHORT)
    for seed in SEEDS:
        call(*train_arguments(prepared, alone.model_copy(update={"seed": seed}), f"seed{seed}.safetensors"))
    return run


def test_a_member_is_the_run_alone_with_a_seed_of_its_own(trained) -> None:
    whole = load_file("checkpoint.safetensors")
    records = [stored_record(f"seed{seed}.safetensors") for seed in SEEDS]
    for number, seed in enumerate(SEEDS):
        member = load_file(f"seed{seed}.safetensors")
        prefix = f"members.{number}."
        own = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
        assert own.keys() == member.keys()
        assert all((own[name] == tensor).all() for name, tensor in member.items())
    made = stored_record("checkpoint.safetensors")
    assert made["trainable_parameters"] == sum(record["trainable_parameters"] for record in records)
    assert made["images_seen"] == sum(record["images_seen"] for record in records)
    assert made["best_epoch"] == max(record["best_epoch"] for record in records)
    assert made["spec"]["seed"] == 0 and made["spec"]["run"] == "tiny.cmer"


def test_validation_scores_the_mean_of_the_members_cosines(prepared, trained) -> None:
    """An image embedding is the mean over the views, of unit length for the ensemble as a whole."""
    pairs, images = prepared.pairs, validation_images(prepared.pairs, None)
    captions, cosines, squares = pairs.captions_of(images), 0.0, 0.0
    for seed in SEEDS:
        run = trained.model_copy(update={"options": trained.options.alone(), "seed": seed})
        ready = assemble(run, pairs, prepared.folder, Path("features.json"))
        load_tensors(ready.method.trained(), load_file(f"seed{seed}.safetensors"), "")
        method, inputs = ready.method.eval(), ready.inputs
        views = [method.encode_images(inputs.images(images, np.full(len(images), v), False)) for v in range(4)]
        mean = torch.stack(views).mean(dim=0)
        texts = method.encode_texts(inputs.texts([pairs.texts[caption] for caption in captions]))
        cosines = cosines + (mean @ texts.T).detach().numpy()
        squares = squares + mean.square().sum(dim=1, keepdim=True).detach().numpy()
    owner = np.searchsorted(images, pairs.caption_image[captions])
    expected = recalls(*ranks(cosines / np.sqrt(squares), owner)).mr
    assert stored_record("checkpoint.safetensors")["val_mr"] == pytest.approx(expected, abs=1e-4)
    assert all(abs(stored_record(f"seed{seed}.safetensors")["val_mr"] - expected) > 0.1 for seed in SEEDS)


def test_the_curve_is_the_mean_of_the_members(trained) -> None:
    def curve(name):
        return [json.loads(line) for line in Path(f"{name}.curve.jsonl").read_text().splitlines()]

    members = [curve(f"seed{seed}") for seed in SEEDS]
    for entries in zip(curve("checkpoint"), *members, strict=True):
        whole, *each = entries
        assert whole["epoch"] == each[0]["epoch"]
        assert whole["val_mr"] == pytest.approx(np.mean([entry["val_mr"] for entry in each]), abs=1e-5)
        assert whole["loss"].keys() == each[0]["loss"].keys() == {"batch", "queue"}
        for name, value in whole["loss"].items():
            assert value == pytest.approx(np.mean([entry["loss"][name] for entry in each]), abs=1e-5)


def test_an_ensemble_resumes_within_its_second_member(prepared, workspace, monkeypatch) -> None:  # noqa: F811
    run = spec(prepared, options=MEMBERS | {"members": 2}, epochs=2)
    steps = -(-len(prepared.pairs.captions_of(prepared.pairs.train_images)) // 6) * 2
    state = resumed_with_the_same_bytes(prepared, run, monkeypatch, steps + 3, "member1.pt")
    assert (state["epoch"], state["step"]) == (0, 3)


def test_an_ensemble_is_embedded_and_scored(prepared, trained) -> None:
    embed(prepared, "features.json")
    assert 0 < evaluate(prepared)["protocols"]["none"]["mr"] <= 100
    whole, one = load_file("embeddings.safetensors"), load_file("checkpoint.safetensors")
    assert one and whole["images"].norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
