"""trsllava from a captioner to metrics, by the commands."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from test_training import call, evaluate

from cmer.captioning.rich import RichTexts
from cmer.config.base import validate
from cmer.config.runs import RunSpec
from cmer.errors import UserError
from cmer.io import read_sealed
from cmer.provenance import stored_record
from cmer.training.assembly import assemble

TINY = {"kind": "tiny", "features": {"views": 4}}
CAPTIONER = {"kind": "jsonl", "path": "own.jsonl"}


def run_spec(**options):
    given = {"captioner": "own"} | options
    backbone = None if given.get("encoder") == "bm25" else TINY
    data = {"run": "x", "dataset": "squares", "seed": 0, "backbone": backbone, "method": "trsllava"}
    return validate(RunSpec, data | {"options": given, "captioner": CAPTIONER, "training": {"threads": 1}}, "spec")


@pytest.fixture
def captioned(prepared, tmp_path, monkeypatch):
    """A working folder with rich texts: of a test image its first caption, its class, and its own words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmer.data.images.FolderImages.read", lambda *_: pytest.fail("opened an image"))
    pairs = prepared.pairs
    rows = []
    for image, file in enumerate(pairs.files):
        first = pairs.texts[np.flatnonzero(pairs.caption_image == image)[0]]
        label = file.partition("_")[0]
        rows.append({"file": file, "captions": {"keywords": [label, first], "sentence": f"{label} numbered {image}"}})
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = json.dumps({"dataset": prepared.options.model_dump(mode="json"), "captioner": CAPTIONER})
    call("caption", "--spec", spec, "--folder", prepared.folder, "--out", "rich.jsonl")
    return prepared


WRITTEN = ("--out", "checkpoint.safetensors", "--curve", "curve.jsonl")


def embed(prepared, run):
    files = ["--folder", prepared.folder, "--captions", prepared.captions, "--validation", prepared.validation]
    rich = ["--rich", "rich.jsonl"]
    call("train", "--spec", run.model_dump_json(), *files, *rich, *WRITTEN)
    query = ["--queries", prepared.queries, "--template", prepared.options.template]
    spec = ["--spec", run.model_dump_json()]
    call(
        "embed",
        "--checkpoint",
        "checkpoint.safetensors",
        *files,
        *query,
        *rich,
        *spec,
        "--out",
        "embeddings.safetensors",
    )
    return load_file("embeddings.safetensors")


def test_captions_find_images_by_their_texts(captioned) -> None:
    tensors = embed(captioned, run_spec(encoder="bm25"))
    assert set(tensors) == {
        f"{kind}/{p}" for kind in ("scores", "index") for p in ("none", "predicted", "oracle", "shuffled")
    }
    metrics = evaluate(captioned)
    record = metrics["record"]
    assert (record["trainable_parameters"], record["images_seen"]) == (0, 0)
    assert (
        record["features"] == RichTexts.read(Path("rich.jsonl"), captioned.pairs.files, captioned.pairs.sha256).digest
    )
    assert record["spec"]["captioner"]["path"] == "own.jsonl"
    found = metrics["protocols"]["none"]
    assert found["t2i_r1"] > 60, "the first caption is in the gallery, and the numbers in the others"
    assert metrics["protocols"]["none"]["unique_texts"] == 39


def test_rich_queries_have_images_of_their_own_and_are_not_in_the_gallery(captioned) -> None:
    tensors = embed(captioned, run_spec(encoder="bm25", query="rich", query_granularity="keywords"))
    test = captioned.pairs.test_images
    assert set(tensors) == {"scores/rich", "index/rich", "owners/rich"}
    assert tensors["owners/rich"].tolist() == [owner for owner in range(len(test)) for _ in range(2)]
    metrics = evaluate(captioned)
    assert set(metrics["protocols"]) == {"rich"}
    assert metrics["record"]["embedding"]["rich_queries"] == {"queries": 18, "repeated_elsewhere": 0}
    shown = read_sealed("queries.json", "cmer evaluate")
    assert set(shown) == {"protocol", "ranks"} and shown["protocol"] == "rich"  # rich texts are no captions
    ranks = pd.read_csv("r.csv")
    queries = ranks[ranks["direction"] == "t2i"]
    assert queries["image"].tolist() == [image for image in test.tolist() for _ in range(2)]
    # What is left of each image is "<class> numbered <id>": only the class matches, which three images share.
    assert metrics["protocols"]["rich"]["t2i_r1"] == pytest.approx(100 / 3, abs=0.01)
    assert metrics["protocols"]["rich"]["t2i_r5"] == 100


def test_the_backbone_gives_the_same_files_to_the_last_byte(captioned) -> None:
    embed(captioned, run_spec())
    first = [Path(name).read_bytes() for name in ("checkpoint.safetensors", "embeddings.safetensors")]
    embed(captioned, run_spec())
    assert first == [Path(name).read_bytes() for name in ("checkpoint.safetensors", "embeddings.safetensors")]
    assert stored_record("checkpoint.safetensors")["train_images"] == len(captioned.pairs.train_images)
    assert 0 <= evaluate(captioned)["protocols"]["none"]["mr"] <= 100


def test_a_run_without_its_texts_is_refused(captioned) -> None:
    with pytest.raises(UserError, match="run x reads rich texts; give the file that `cmer caption` wrote as --rich"):
        assemble(run_spec(), captioned.pairs, captioned.folder, None)


def test_splitting_sets_queries_aside(tmp_path) -> None:
    texts = [
        {"sentence": ["one", "uno"], "keywords": ["a", "one"]},
        {"sentence": ["two"], "keywords": ["a", "uno"]},
        {"sentence": ["two"], "keywords": ["two", "b"]},
    ]
    rich = RichTexts(tmp_path / "rich.jsonl", texts, "")
    gallery, queries = rich.split(np.array([0, 1, 2]), "sentence")
    assert gallery == [["a"], ["a", "uno"], ["b"]], "no query is in its own entry, whatever its granularity there"
    assert (queries.texts, queries.owners.tolist()) == (["one", "uno", "two", "two"], [0, 0, 1, 2])
    assert queries.counts() == {"queries": 4, "repeated_elsewhere": 1}
    assert rich.split(np.array([2, 0]), None) == ([["two", "b"], ["one", "uno", "a"]], None)
    with pytest.raises(
        UserError, match=r"rich.jsonl: image 0 has no text 'paragraph' for a query; it has sentence, keywords"
    ):
        rich.split(np.array([0]), "paragraph")
    alone = RichTexts(tmp_path / "rich.jsonl", [{"sentence": ["one"], "keywords": ["one"]}], "")
    with pytest.raises(UserError, match="image 0 has only texts 'sentence', which are its queries, and no others"):
        alone.split(np.array([0]), "sentence")
