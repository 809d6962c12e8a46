"""Files that a run reads besides the dataset: local weights, which its record holds, and none that it does not read."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from test_own_towers import PIR
from test_training import call, embed, extract_features, spec, train_arguments

from cmer.errors import UserError
from cmer.features.inputs import stored_texts
from cmer.features.store import Manifest, Store
from cmer.training.assembly import FEATURES


def write_scene(path: str, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)


def test_other_weights_under_the_same_name_are_another_run(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS", str(tmp_path))
    write_scene("scene.pt", 1)
    run = spec(prepared, "pir", PIR | {"scene_weights": "$MODELS/scene.pt"}, inputs="online", epochs=1)
    call(*train_arguments(prepared, run))
    embed(prepared)
    write_scene("scene.pt", 2)
    with pytest.raises(UserError, match=r"was trained on other images, features or weight files; give its own"):
        embed(prepared)
    first = load_file("checkpoint.safetensors")
    call(*train_arguments(prepared, run))
    assert any(not torch.equal(tensor, first[name]) for name, tensor in load_file("checkpoint.safetensors").items())
    embed(prepared)
    Path("scene.pt").unlink()
    with pytest.raises(UserError, match=r"scene\.pt does not exist"):
        call(*train_arguments(prepared, run))


def test_features_of_other_weights_are_refused(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)
    found = Manifest.read("features.json")
    found.model_copy(update={"weights": "0" * 64}).write("features.json")
    message = "the features of squares were made with other weights than tiny has now; extract them again"
    store = Store(Manifest.read("features.json"), FEATURES)
    with pytest.raises(UserError, match=message):  # as for queries of `predicted`
        stored_texts(store, [], {"a text that is not stored"})(["a text that is not stored"])
    with pytest.raises(UserError, match=message):  # trains within the text tower
        call(*train_arguments(prepared, spec(prepared, options={"text": "lora"}, epochs=1)))


@pytest.mark.parametrize(
    ("inputs", "option", "message"),
    [
        ("stored", "--rich", r"run tiny\.cmer reads stored features and no rich texts; omit --rich"),
        ("online", "--rich", r"run tiny\.cmer reads pixels and no rich texts; omit --rich"),
        ("online", "--features", r"run tiny\.cmer reads pixels and no stored features; omit --features"),
    ],
)
def test_a_file_that_the_run_does_not_read_is_refused(prepared, tmp_path, monkeypatch, inputs, option, message) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmer.training.assembly.build", lambda *_: pytest.fail("built the method"))
    with pytest.raises(UserError, match=message):
        call(*train_arguments(prepared, spec(prepared, inputs=inputs)), option, "any.jsonl")
