"""The epoch whose weights are kept, and what a run refuses to read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import BACKBONE, call, embed, extract_features, spec, train_arguments
from typer.testing import CliRunner

from cmer.backbones.build import build
from cmer.backbones.tiny.options import TinyOptions
from cmer.cli.main import app
from cmer.config.base import validate
from cmer.data.frames import read_frame, write_frame
from cmer.data.prompts import predicted_queries
from cmer.features.device import autocast
from cmer.features.inputs import online_texts, stored_texts
from cmer.features.store import Manifest, Store
from cmer.methods.cmer.model import Cmer
from cmer.provenance import stored_record
from cmer.retrieval.embed import encode_texts
from cmer.training import run as training_run
from cmer.training.loop import Trainer, load_tensors
from cmer.training.run import FEATURES, RunFiles, assemble, embed_run


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    """An empty working folder with the features extracted."""
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)


def test_the_kept_epoch_has_the_best_unrounded_recall(prepared, workspace, monkeypatch) -> None:
    recalls, weights = iter([50.00001, 50.00002, 50.00002, 50.00001]), []

    def validate(self, found):
        weights.append({name: tensor.clone() for name, tensor in found.items()})
        return next(recalls)

    monkeypatch.setattr(Trainer, "validate", validate)
    call(*train_arguments(prepared, spec(prepared, epochs=4)))
    record = stored_record("checkpoint.safetensors")
    assert (record["best_epoch"], record["val_mr"]) == (2, 50.0)
    kept = load_file("checkpoint.safetensors")
    assert kept.keys() == weights[1].keys()
    assert all(torch.equal(kept[name], weights[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], weights[2][name]) for name in kept)


def test_features_of_other_images_are_refused(prepared, workspace) -> None:
    call(*train_arguments(prepared, spec(prepared, epochs=1)))
    images = read_frame(prepared.folder / "images.csv")
    other = Path("other")
    images.loc[0, "sha256"] = images.loc[1, "sha256"]
    write_frame(other / "images.csv", images)
    arguments = train_arguments(prepared, spec(prepared))
    arguments[arguments.index("--folder") + 1] = str(other)
    refused = CliRunner().invoke(app, arguments).exception
    assert "features.json was extracted from other images" in str(refused)
    changed = RunFiles(other, prepared.captions, prepared.validation, None, Path("features.json"))
    with pytest.raises(Exception, match="extracted from other images"):
        embed_run(Path("checkpoint.safetensors"), changed, prepared.queries, "{label}", Path("out"))


def test_features_of_another_backbone_are_refused(prepared, workspace) -> None:
    run = spec(prepared)
    other = run.model_copy(update={"backbone": run.backbone.model_copy(update={"seed": 1})})
    refused = CliRunner().invoke(app, train_arguments(prepared, other)).exception
    assert "features.json was extracted with another backbone: its seed is 0, not 1" in str(refused)


def test_a_training_on_another_kind_of_device_starts_anew(prepared, monkeypatch) -> None:
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation)
    run, names = spec(prepared, inputs="online"), set()
    ready = assemble(run, prepared.pairs, prepared.folder, None)
    for kind in ("cpu", "cuda"):
        monkeypatch.setattr(training_run, "device", lambda kind=kind: torch.device(kind))
        names.add(training_run._state_digest(run, training_run._record(run, ready), files))
    assert len(names) == 2


def test_texts_that_are_not_stored_are_computed(prepared, workspace) -> None:
    loaded = []
    options = validate(TinyOptions, BACKBONE, "backbone")

    def load():
        loaded.append(build(options))
        return loaded[-1]

    store = Store(Manifest.read("features.json"), FEATURES)
    texts = stored_texts(store, [1], load)
    assert torch.equal(texts(prepared.pairs.texts[:2]).pooled, store.texts(prepared.pairs.texts[:2], [1]).pooled)
    assert not loaded
    asked = [prepared.pairs.texts[0], "a text that nobody wrote"]
    expected = online_texts(build(options), options, [1])(asked)
    for _ in range(2):
        found = texts(asked)
        assert torch.equal(found.pooled, expected.pooled) and torch.equal(found.blocks[1], expected.blocks[1])
    assert len(loaded) == 1


def test_predicted_queries_are_encoded_like_any_other_text(prepared, workspace) -> None:
    """With another template than in the stored prompts, so that the texts are not among the stored ones."""
    run = spec(prepared, epochs=1)
    call(*train_arguments(prepared, run))
    template = "a photo of {label}: {caption}"
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation, None, Path("features.json"))
    embed_run(Path("checkpoint.safetensors"), files, prepared.queries, template, Path("embeddings.safetensors"))
    tensors = load_file("embeddings.safetensors")
    ready = assemble(spec(prepared, inputs="online"), prepared.pairs, prepared.folder, None)
    load_tensors(ready.method.trained(), load_file("checkpoint.safetensors"))
    plain = read_frame(prepared.queries)["none"].tolist()
    queries = predicted_queries(template, prepared.pairs, plain)
    expected, index = encode_texts(ready.method, ready.inputs, queries, "float32")
    found = tensors["texts/predicted"][tensors["index/predicted"]]
    assert torch.allclose(found, expected[index], atol=1e-4)
    assert not torch.allclose(found, tensors["texts/none"][tensors["index/none"]], atol=1e-2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_validation_and_test_have_one_precision(prepared, workspace, monkeypatch, precision) -> None:
    """The dtype of a matrix product within the encoders, in each phase; stored embeddings are float32."""
    phase, seen = ["training"], set()
    for side in ("encode_images", "encode_texts"):
        encode = getattr(Cmer, side)
        monkeypatch.setattr(
            Cmer, side, lambda self, batch, encode=encode: seen.add((phase[0], product())) or encode(self, batch)
        )
    validate = Trainer.validate

    def validated(self, weights):
        phase[0] = "validation"
        found = validate(self, weights)
        phase[0] = "training"
        return found

    monkeypatch.setattr(Trainer, "validate", validated)
    call(*train_arguments(prepared, spec(prepared, epochs=1, precision=precision)))
    phase[0] = "test"
    embed(prepared, "features.json")
    expected = getattr(torch, precision)
    assert seen == {("training", expected), ("validation", expected), ("test", expected)}
    tensors = load_file("embeddings.safetensors")
    assert tensors["images"].dtype == tensors["texts/none"].dtype == torch.float32


def product() -> torch.dtype:
    return (torch.ones(1, 1) @ torch.ones(1, 1)).dtype


def test_frozen_towers_have_the_precision_of_their_backbone(monkeypatch) -> None:
    for precision in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16), autocast(precision):
            assert product() == getattr(torch, precision)
