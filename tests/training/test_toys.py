"""Methods of other shapes than CMER's go the whole way: training, resuming, evaluation, profile and table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from interruption import resumed_with_the_same_bytes
from safetensors.torch import load_file
from test_training import call, embed, evaluate, extract_features, spec, train_arguments

from cmer.features.inputs import Inputs
from cmer.methods.items import concatenate
from cmer.profiling.bench import Bench
from cmer.profiling.spec import ProfileSpec
from cmer.retrieval.embed import encode_images, encode_texts, score
from cmer.training.assembly import assemble
from cmer.training.loop import Trainer

TOYS = {"toy_pairs": {}, "toy_conditioned": {"dropout": 0.1}, "toy_rates": {}}


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)


@pytest.mark.parametrize("name", TOYS)
def test_a_method_goes_all_the_way_to_a_table(prepared, workspace, monkeypatch, name) -> None:
    run = spec(prepared, name, TOYS[name], inputs="online", epochs=2)
    state = resumed_with_the_same_bytes(prepared, run, monkeypatch, 7)
    assert state["step"] + state["epoch"] * 100 > 0

    embed(prepared)
    metrics = evaluate(prepared)
    assert metrics["record"]["images_seen"] == 2 * 5 * len(prepared.pairs.train_images)
    tensors = load_file("embeddings.safetensors")
    expected = (len(prepared.pairs.test_images), 5 * len(prepared.pairs.test_images))
    assert name == "toy_rates" or tensors["scores/none"].shape == expected == (9, 45)

    row = {"name": run.run, "dataset": "squares", "dataset_title": "squares", "backbone_printed": "toy"}
    table = {
        "kind": "table1",
        "runs": [row | {"method": name, "options": TOYS[name]}],
        "protocols": ["none"],
        "seeds": [0],
    }
    call("table", "--spec", json.dumps(table), "--metrics", "metrics.json", "--out", "table1.csv")
    assert run.run in Path("table1.csv").read_text()


@pytest.mark.parametrize("name", TOYS)
def test_a_method_is_profiled(name) -> None:
    backbone = {"kind": "tiny"} if name == "toy_rates" else None
    rows = [{"run": name, "method": name}]
    asked = ProfileSpec.model_validate({"name": "toys", "backbone": backbone, "rows": rows})
    counted = Bench(asked, asked.rows[0]).count("today", 4, timed=False)
    assert counted["parameters"] > 0 and counted["saved_bytes"] > 0 and counted["macs_forward"] > 0


def ready(prepared, name) -> tuple[torch.nn.Module, Inputs]:
    made = assemble(spec(prepared, name, inputs="online"), prepared.pairs, prepared.folder, None)
    return made.method, made.inputs


@pytest.mark.parametrize("name", ["toy_pairs", "toy_conditioned"])
def test_scores_in_blocks_are_the_whole_matrix(prepared, workspace, monkeypatch, name) -> None:
    method, inputs = ready(prepared, name)
    images = encode_images(method, inputs, prepared.pairs.test_images, 1, "float32")
    items, index = encode_texts(method, inputs, prepared.pairs.texts[:20], "float32")
    found = score(method, images, items, index)
    monkeypatch.setattr(method, "pairs_per_block", 10**6)
    with torch.inference_mode():
        assert np.allclose(found, method.score(images[0], items)[:, index].numpy(), atol=1e-5)


def test_no_block_holds_more_pairs_than_the_method_asks_for(prepared, workspace) -> None:
    """The toy asserts it for every block; this counts that each pair is scored once."""
    method, inputs = ready(prepared, "toy_pairs")
    images = encode_images(method, inputs, prepared.pairs.test_images, 1, "float32")
    items, index = encode_texts(method, inputs, prepared.pairs.texts[:20], "float32")
    score(method, images, items, index)
    assert method.pairs_scored == 9 * len(set(prepared.pairs.texts[:20]))


def test_what_pads_a_ragged_item_does_not_count(prepared, workspace) -> None:
    method, inputs = ready(prepared, "toy_conditioned")
    with torch.inference_mode():
        alone = [method.encode_texts(inputs.texts([text])) for text in ("a pond", "a pond seen from far above")]
        images = method.eval().encode_images(inputs.images(np.arange(3), np.zeros(3, int), False))
        together = method.score(images, concatenate(alone))
        for column, item in enumerate(alone):
            assert torch.allclose(together[:, [column]], method.score(images, item), atol=1e-6)
    assert concatenate(alone)["mask"].sum(dim=1).tolist() == [2, 6]


def test_statistics_of_a_trained_batchnorm_are_in_the_checkpoint(prepared, workspace) -> None:
    call(*train_arguments(prepared, spec(prepared, "toy_pairs", inputs="online", epochs=1)))
    tensors = load_file("checkpoint.safetensors")
    assert tensors["cnn.1.running_mean"].abs().max() > 0
    assert not torch.equal(tensors["cnn.1.running_var"], torch.ones(8))


def test_parameter_groups_give_rates_and_decays_and_freeze_the_rest(prepared, workspace) -> None:
    run = spec(prepared, "toy_rates", inputs="online", lr=0.1, weight_decay=0.5, warmup=0.0)
    made = assemble(run, prepared.pairs, prepared.folder, None)
    trainer = Trainer(made.method, made.inputs, prepared.pairs, run, Path("never/state.pt"))
    before = {name: tensor.clone() for name, tensor in made.method.named_parameters()}
    trainer.step(trainer.batches(0)[0])
    names = {id(tensor): name for name, tensor in made.method.named_parameters()}
    groups = {
        names[id(tensor)]: (group["lr"], group["weight_decay"])
        for group in trainer.state.optimizer.param_groups
        for tensor in group["params"]
    }
    image, text = (pytest.approx(0.01), 0.3), (pytest.approx(0.1), 0.5)
    assert groups == {"image.weight": image, "image.bias": image, "text.weight": text}
    moved = {name for name, tensor in made.method.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == set(groups) and "text.bias" in before
    assert made.method.count() == sum(before[name].numel() for name in groups)


def test_a_vocabulary_is_of_the_train_captions_alone(prepared, workspace) -> None:
    method, _ = ready(prepared, "toy_pairs")
    pairs = prepared.pairs
    words = {word for caption in pairs.captions_of(pairs.train_images) for word in pairs.texts[caption].split()}
    assert set(method.words.ids) == words
    everything = {word for text in pairs.texts for word in text.split()}
    assert everything - words, "the test images' numbers are in no train caption"


def test_a_costly_method_validates_every_few_epochs_on_some_images(prepared, workspace, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        "cmer.training.validation.encode_images",
        lambda method, inputs, images, *rest: seen.append(images) or encode_images(method, inputs, images, *rest),
    )
    budget = {"epochs": 5, "validate_every": 2, "validation_images": 2}
    call(*train_arguments(prepared, spec(prepared, "toy_pairs", inputs="online", **budget)))
    curve = [json.loads(line) for line in Path("checkpoint.curve.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in curve if "val_mr" in entry] == [2, 4, 5]
    assert len(curve) == 5 and len(seen) == 3
    assert all(images.tolist() == seen[0].tolist() for images in seen) and len(seen[0]) == 2
    assert set(seen[0]) < set(prepared.pairs.val_images)


def test_registered_toys() -> None:
    each = toy.ToyPairsOptions(), toy.ToyConditionedOptions(), toy.ToyRatesOptions()
    assert [options.scoring for options in each] == ["pair", "conditioned", "embedding"]
