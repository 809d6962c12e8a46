"""The epoch whose weights are kept, and what a run refuses to read."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import call, embed, extract_features, spec, train_arguments
from typer.testing import CliRunner

from cmer.cli.main import app
from cmer.config.methods import MethodOptions
from cmer.data.frames import IMAGES, QUERIES, read_frame, write_frame
from cmer.data.prompts import predicted_queries
from cmer.errors import UserError
from cmer.features.device import autocast
from cmer.features.store import Manifest
from cmer.methods.cmer.model import Cmer
from cmer.provenance import stored_record
from cmer.retrieval.embed import encode_texts
from cmer.training import assembly, embedding
from cmer.training import run as training_run
from cmer.training.assembly import FEATURES, RunFiles, assemble
from cmer.training.checkpoint import load, load_tensors, save
from cmer.training.embedding import embed_run
from cmer.training.loop import Trainer
from cmer.training.run import train_run


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
    images = read_frame(prepared.folder / "images.csv", IMAGES)
    other = Path("other")
    images.loc[0, "sha256"] = images.loc[1, "sha256"]
    write_frame(other / "images.csv", images)
    arguments = train_arguments(prepared, spec(prepared))
    arguments[arguments.index("--folder") + 1] = str(other)
    refused = CliRunner().invoke(app, arguments).exception
    assert "features.json was extracted from other images" in str(refused)
    changed = RunFiles(other, prepared.captions, prepared.validation, None, Path("features.json"))
    with pytest.raises(UserError, match="extracted from other images"):
        embed_run(Path("checkpoint.safetensors"), changed, prepared.queries, "{label}", Path("out"))


def test_features_of_another_backbone_are_refused(prepared, workspace) -> None:
    run = spec(prepared)
    other = run.model_copy(update={"backbone": run.backbone.model_copy(update={"seed": 1})})
    refused = CliRunner().invoke(app, train_arguments(prepared, other)).exception
    assert "features.json was extracted with another backbone: its seed is 0, not 1" in str(refused)


def test_a_checkpoint_of_another_run_is_refused(prepared, workspace) -> None:
    run = spec(prepared, epochs=1)
    call(*train_arguments(prepared, run))
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation, None, Path("features.json"))
    other = run.model_copy(update={"seed": 7, "training": run.training.model_copy(update={"lr": 0.1})})
    arguments = (Path("checkpoint.safetensors"), files, prepared.queries, "{label}", Path("out"))
    with pytest.raises(UserError, match=r"is of another run: its seed is 0, not 7, training\.lr is 0\.002, not 0\.1"):
        embed_run(*arguments, other)
    embed_run(*arguments, run)


def test_a_backbone_with_another_printed_name_reads_the_same_features(prepared, workspace) -> None:
    run = spec(prepared, epochs=1)
    renamed = run.backbone.model_copy(update={"printed": "another name"})
    call(*train_arguments(prepared, run.model_copy(update={"backbone": renamed})))


def test_features_are_compared_with_the_run_before_any_are_rebuilt(prepared, workspace, monkeypatch) -> None:
    shutil.rmtree(FEATURES)
    rebuilt = []
    monkeypatch.setattr(assembly, "extract", lambda *_: rebuilt.append(1))
    run = spec(prepared)
    other = run.model_copy(update={"backbone": run.backbone.model_copy(update={"seed": 1})})
    with pytest.raises(UserError, match="another backbone"):
        assemble(other, prepared.pairs, prepared.folder, Path("features.json"))
    assert not rebuilt


def test_features_without_all_texts_of_the_dataset_are_refused(prepared, workspace) -> None:
    """Another text in the place of one that training, or embedding under a stored protocol, reads."""
    call(*train_arguments(prepared, spec(prepared, epochs=1)))
    manifest = Manifest.read("features.json")
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation, None, Path("features.json"))
    pairs = files.pairs(spec(prepared))
    trained = pairs.texts[pairs.captions_of(pairs.train_images)[0]]
    asked = read_frame(prepared.queries, QUERIES)["shuffled"][0]
    for text, read in ((trained, "train"), (asked, "embed")):
        stale = [f"stale {other}" if other == text else other for other in manifest.texts]
        manifest.model_copy(update={"texts": stale}).write("features.json")
        with pytest.raises(UserError, match=r"no stored features for the text .* extract the features again"):
            if read == "train":
                train_run(spec(prepared, epochs=1), files, Path("other.safetensors"), Path("other.jsonl"))
            else:
                embed_run(Path("checkpoint.safetensors"), files, prepared.queries, "{label}", Path("out"))


@pytest.mark.parametrize("file", ["images.csv", "captions", "validation"])
def test_a_training_with_another_input_file_starts_anew(prepared, tmp_path, file) -> None:
    changed = tmp_path / "changed.csv"
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation)
    if file == "images.csv":
        shutil.copytree(prepared.folder, tmp_path / "folder")
        other, changed = replace(files, folder=tmp_path / "folder"), tmp_path / "folder" / file
    else:
        shutil.copy(getattr(files, file), changed)
        other = replace(files, **{file: changed})
    run = spec(prepared, inputs="online")
    assert training_run._state_digest(run, {}, other) == training_run._state_digest(run, {}, files)
    changed.write_text(changed.read_text() + "\n")
    assert training_run._state_digest(run, {}, other) != training_run._state_digest(run, {}, files)


def test_a_training_on_another_kind_of_device_starts_anew(prepared, monkeypatch) -> None:
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation)
    run, names = spec(prepared, inputs="online"), set()
    ready = assemble(run, prepared.pairs, prepared.folder, None)
    for kind in ("cpu", "cuda"):
        monkeypatch.setattr(training_run, "device", lambda kind=kind: torch.device(kind))
        names.add(training_run._state_digest(run, training_run._record(run, ready), files))
    assert len(names) == 2


def test_a_training_in_another_number_of_processes_does_not_start_anew(prepared) -> None:
    """It is refused, as its state says."""
    files, names = RunFiles(prepared.folder, prepared.captions, prepared.validation), []
    for training in ({"processes": 1}, {"processes": 2}, {"lr": 0.5}):
        run = spec(prepared, inputs="online", **training)
        ready = assemble(run, prepared.pairs, prepared.folder, None)
        names.append(training_run._state_digest(run, training_run._record(run, ready), files))
    assert names[0] == names[1] != names[2]


def test_the_code_in_a_record_is_that_of_the_run(prepared, monkeypatch) -> None:
    for module in (training_run, embedding):
        monkeypatch.setattr(module, "code_digest", lambda *names: names)
    run = spec(prepared, "linear_probe", inputs="online")
    ready = assemble(run, prepared.pairs, prepared.folder, None)
    found = {"cmer.methods.linear_probe.model", "cmer.losses.batch.contrastive", "cmer.backbones.tiny.model"}
    assert set(training_run._record(run, ready)["code"]) == found | {"cmer.training.run"}
    assert set(embedding._made(run)["code"]) == found | {"cmer.training.embedding"}


def test_predicted_queries_are_encoded_like_any_other_text(prepared, workspace) -> None:
    """With another template than in the stored prompts, so that the texts are not among the stored ones."""
    run = spec(prepared, epochs=1)
    call(*train_arguments(prepared, run))
    template = "a photo of {label}: {caption}"
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation, None, Path("features.json"))
    embed_run(Path("checkpoint.safetensors"), files, prepared.queries, template, Path("embeddings.safetensors"))
    tensors = load_file("embeddings.safetensors")
    ready = assemble(spec(prepared, inputs="online"), prepared.pairs, prepared.folder, None)
    load_tensors(ready.method.trained(), load_file("checkpoint.safetensors"), "checkpoint")
    plain = read_frame(prepared.queries, QUERIES)["none"].tolist()
    queries = predicted_queries(template, prepared.pairs, plain)
    expected, index = encode_texts(ready.method, ready.inputs, queries, "float32")
    found = tensors["texts/predicted"][tensors["index/predicted"]]
    assert torch.allclose(found, expected[index], atol=1e-4)
    assert not torch.allclose(found, tensors["texts/none"][tensors["index/none"]], atol=1e-2)


def test_a_method_of_plain_queries_has_no_other_protocol(prepared, workspace, monkeypatch) -> None:
    call(*train_arguments(prepared, spec(prepared, "zero_shot")))
    monkeypatch.setattr(MethodOptions, "protocols", ("none",))
    embed(prepared, "features.json")
    assert set(load_file("embeddings.safetensors")) == {"images", "texts/none", "index/none"}


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
    made = stored_record("embeddings.safetensors")["embedding"]
    assert made["device"] == "cpu" and "scikit-learn" in made["versions"]
    for embeddings in (tensors["images"], tensors["texts/none"]):
        assert embeddings.dtype == torch.float32
        assert torch.allclose(embeddings.norm(dim=1), torch.tensor(1.0), rtol=0, atol=1e-6)


def product() -> torch.dtype:
    return (torch.ones(1, 1) @ torch.ones(1, 1)).dtype


def test_frozen_towers_have_the_precision_of_their_backbone(monkeypatch) -> None:
    for precision in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16), autocast(precision):
            assert product() == getattr(torch, precision)


def test_a_checkpoint_of_other_features_is_refused(prepared, workspace) -> None:
    """Two datasets may give two runs the same settings, apart from the dataset's name."""
    call(*train_arguments(prepared, spec(prepared, epochs=1)))
    tensors, record = load("checkpoint.safetensors")
    save("other.safetensors", tensors, record | {"features": "another dataset's"})
    files = RunFiles(prepared.folder, prepared.captions, prepared.validation, None, Path("features.json"))
    with pytest.raises(UserError, match=r"other\.safetensors was trained on other images, features or weight files"):
        embed_run(Path("other.safetensors"), files, prepared.queries, "{label}. {caption}", Path("out"))


@pytest.mark.parametrize("record", [{}, {"trainable_parameters": 0, "embedding": {}}])
def test_what_is_no_checkpoint_is_named(tmp_path, record) -> None:
    save(tmp_path / "x.safetensors", {}, record)
    with pytest.raises(UserError, match=r"x\.safetensors is not a checkpoint; give one that `cmer train` wrote"):
        load(tmp_path / "x.safetensors")
