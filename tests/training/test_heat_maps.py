"""Heat maps of a trained run, through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_training import BACKBONE, call, embed, extract_features, spec, train_arguments

from cmer.config.runs import RunSpec
from cmer.errors import UserError
from cmer.features.store import Manifest
from cmer.io import read_sealed


def arguments(prepared, run, out: str, *queries: str) -> list[str]:
    given = {"run": run.model_dump(mode="json"), "dataset": prepared.options.model_dump(), "queries": list(queries)}
    files = ["--folder", prepared.folder, "--captions", prepared.captions, "--validation", prepared.validation]
    files += ["--features", "features.json"] if run.source is None else []
    return ["heat-maps", "--spec", json.dumps(given), "--checkpoint", "checkpoint.safetensors", *files, "--out", out]


def test_scores_are_those_of_the_embeddings_and_the_bytes_are_the_same_again(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BACKBONE, "features", {"views": 1})  # the maps are of the image as it is
    extract_features(prepared)
    run = spec(prepared, options={"text": "side_branch"}, epochs=2)
    call(*train_arguments(prepared, run))
    embed(prepared, "features.json")
    for out in ("maps.json", "again.json"):
        call(*arguments(prepared, run, out))
    assert Path("maps.json").read_bytes() == Path("again.json").read_bytes()

    pairs, tensors = prepared.pairs, load_file("embeddings.safetensors")
    test = pairs.test_images.tolist()
    texts = [pairs.texts[caption] for caption in pairs.captions_of(pairs.test_images)]
    found = read_sealed("maps.json", "cmer heat-maps")["pairs"]
    assert len(found) == 4 and len({one["image_id"] for one in found}) == 4
    for one in found:
        row = tensors["index/none"][texts.index(one["caption"])]
        expected = tensors["images"][test.index(one["image_id"])] @ tensors["texts/none"][row]
        assert one["score"] == pytest.approx(expected, abs=1e-4)
        assert set(one["maps"]) == set(one["shuffled"]) == {"side branch", "tower and branch"}
        assert all(np.shape(values) == (4, 4) and np.max(values) in (0, 1) for values in one["maps"].values())
    assert min(abs(value) for one in found for value in one["shuffled"].values()) < 0.9

    call(*arguments(prepared, run, "given.json", texts[7]))
    assert [one["caption"] for one in read_sealed("given.json", "cmer heat-maps")["pairs"]] == [texts[7]]
    with pytest.raises(UserError, match="'a moon' is no caption of a test image"):
        call(*arguments(prepared, run, "no.json", "a moon"))


def test_weights_and_features_are_those_of_the_training(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    extract_features(prepared)
    run = spec(prepared, epochs=1)
    call(*train_arguments(prepared, run))
    whole = arguments(prepared, run, "no.json")
    with pytest.raises(UserError, match=r"run tiny\.cmer reads stored features; give their manifest as --features"):
        call(*(each for each in whole if each not in ("--features", "features.json")))
    manifest = Manifest.read("features.json")
    for changed, message in (
        ({"weights": "0" * 64}, "made with other weights than tiny has now; extract them again"),
        ({"images": "0" * 64}, "was extracted from other images"),
        ({"digest": "0" * 64}, "was trained on other images, features or weight files; give its own"),
    ):
        manifest.model_copy(update=changed).write("features.json")
        with pytest.raises(UserError, match=message):
            call(*whole)


def test_weight_files_of_the_user_are_those_of_the_training(prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunSpec, "weight_files", lambda _: ["own.pt"])
    Path("own.pt").write_bytes(b"first")
    run = spec(prepared, inputs="online", epochs=1)
    call(*train_arguments(prepared, run))
    call(*arguments(prepared, run, "maps.json"))
    Path("own.pt").write_bytes(b"second")
    with pytest.raises(UserError, match="was trained on other images, features or weight files; give its own"):
        call(*arguments(prepared, run, "no.json"))
