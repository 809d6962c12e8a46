"""The bank of a run, and its reranked scores, through the commands."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from test_training import call, embed, evaluate, extract_features, spec, train_arguments

from cmer.provenance import stored_record
from cmer.retrieval.recall import ranks, recalls

RERANK = {"name": "tiny.cmer.smr", "reranker": {"kind": "smr", "gamma1": [0.0, 1.0], "gamma2": [0.0, 1.0]}}


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A folder with a trained run, its embeddings and its bank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("bank"))
        extract_features(prepared)
        call(*train_arguments(prepared, spec(prepared, "linear_probe", epochs=2)))
        embed(prepared, "features.json")
        files = ["--folder", prepared.folder, "--captions", prepared.captions, "--validation", prepared.validation]
        files += ["--features", "features.json", "--out", "bank.safetensors"]
        call("bank", "--checkpoint", "checkpoint.safetensors", *files)
        return Path.cwd()


def test_a_bank_has_the_validation_split_and_the_train_split(prepared, trained) -> None:
    found, pairs = load_file(trained / "bank.safetensors"), prepared.pairs
    train = {pairs.texts[caption] for caption in pairs.captions_of(pairs.train_images)}
    assert len(found["images"]) == len(pairs.val_images) and len(found["bank/images"]) == len(pairs.train_images)
    assert len(found["bank/captions"]) == len(train)
    captions = pairs.captions_of(pairs.val_images)
    assert (pairs.val_images[found["owner"]] == pairs.caption_image[captions]).all()
    texts = [pairs.texts[caption] for caption in captions]
    rows = dict(zip(texts, found["index/none"].tolist(), strict=True))
    assert [rows[text] for text in texts] == found["index/none"].tolist()  # equal captions share a row

    curve = [json.loads(line) for line in (trained / "checkpoint.curve.jsonl").read_text().splitlines()]
    scores = found["images"].astype(float) @ found["texts/none"].astype(float).T[:, found["index/none"]]
    mr = recalls(*ranks(scores.astype(np.float32), found["owner"])).mr
    assert mr == pytest.approx(max(entry["val_mr"] for entry in curve), abs=1e-3)  # what training selected on
    assert stored_record(trained / "bank.safetensors")["bank"] is True


def written(name: str) -> list[str]:
    """The outputs of `cmer evaluate`."""
    ends = {"out": "json", "ranks": "csv", "shown": "queries.json", "mr": "mr.json"}
    return [word for option, end in ends.items() for word in (f"--{option}", f"{name}.{end}")]


def test_scores_are_reranked_through_the_command(prepared, trained, monkeypatch) -> None:
    monkeypatch.chdir(trained)
    files = ["--embeddings", "embeddings.safetensors", "--folder", prepared.folder, "--queries", prepared.queries]
    files += ["--bank", "bank.safetensors", "--rerank", json.dumps(RERANK), "--grid", "grid.csv"]
    call("evaluate", *files, *written("reranked"))
    reranked = json.loads(Path("reranked.json").read_text())["record"]["reranking"]
    grid = pd.read_csv("grid.csv")
    assert reranked["name"] == "tiny.cmer.smr" and reranked["grid"] == grid.to_dict("records")
    assert len(grid) == 4 and reranked["chosen"] in grid[grid["val_mr"] == grid["val_mr"].max()][
        ["gamma1", "gamma2"]
    ].to_dict("records")
    own = evaluate(prepared)
    plain = json.dumps(RERANK | {"reranker": {"kind": "smr", "gamma1": [0.0], "gamma2": [0.0]}})
    files[files.index("--rerank") + 1] = plain
    call("evaluate", *files, *written("same"))
    assert json.loads(Path("same.json").read_text())["protocols"] == own["protocols"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--bank", "bank.safetensors"], "belong to --rerank"),
        (["--rerank", json.dumps(RERANK)], "give the file that `cmer bank` wrote"),
        (["--rerank", '{"name": "a.b", "reranker": {"kind": "sorted"}}'], "unknown reranker 'sorted'"),
    ],
)
def test_half_a_reranking_is_refused(prepared, trained, monkeypatch, given, message) -> None:
    monkeypatch.chdir(trained)
    files = ["--embeddings", "embeddings.safetensors", "--folder", prepared.folder, "--queries", prepared.queries]
    if "sorted" in given[-1]:
        given = [*given, "--bank", "bank.safetensors"]
    with pytest.raises(Exception, match=message):
        call("evaluate", *files, *given, *written("no"))
    assert not Path("no.json").exists()


def test_a_checkpoint_of_another_run_than_wanted_gives_no_bank(prepared, trained, monkeypatch) -> None:
    monkeypatch.chdir(trained)
    files = ["--folder", prepared.folder, "--captions", prepared.captions, "--validation", prepared.validation]
    files += ["--spec", spec(prepared, "linear_probe", epochs=3).model_dump_json(), "--out", "no.safetensors"]
    with pytest.raises(Exception, match=r"is of another run: its training\.epochs is 2, not 3"):
        call("bank", "--checkpoint", "checkpoint.safetensors", "--features", "features.json", *files)
    assert not Path("no.safetensors").exists()
