"""Retrieval by human captions of the images, against loops over images and captions."""

import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cmer.cli.ceiling import app
from cmer.config.backbones import named_backbone
from cmer.data.bm25 import BM25
from cmer.errors import UserError
from cmer.reporting.ceiling import ceiling_table
from cmer.retrieval.ceiling import SHARES, Captions, caption_scores, fit_fusion, recalls_of
from cmer.retrieval.recall import ranks, recalls
from cmer.retrieval.text_encoders import TowerEncoder, text_encoder

IMAGES = [
    ["a pond", "two ponds", "water", "blue water", "a lake"],
    ["a farm", "a farm", "green farm", "fields", "a farm"],
    ["road", "road", "road", "road", "road"],
    ["a pond", "trees", "many trees", "a park"],
]


def vector(text: str) -> np.ndarray:
    found = np.random.default_rng(zlib.crc32(text.encode())).normal(size=4)
    return found / np.linalg.norm(found)


def encoder(queries, gallery):
    return np.stack([vector(text) for text in queries]) @ np.stack([vector(text) for text in gallery]).T


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_an_image_is_represented_by_its_other_captions(reduce) -> None:
    captions = Captions.of(IMAGES)
    found = caption_scores(captions, encoder, reduce)
    places = [(image, place) for image, texts in enumerate(IMAGES) for place in range(len(texts))]
    for column, (owner, place) in enumerate(places):
        for image, texts in enumerate(IMAGES):
            others = [text for other, text in enumerate(texts) if other != place]
            scores = [vector(IMAGES[owner][place]) @ vector(text) for text in others]
            assert found[image, column] == pytest.approx(max(scores) if reduce == "max" else np.mean(scores))


def test_a_query_meets_its_own_text_only_where_another_caption_repeats_it() -> None:
    captions = Captions.of([[f"{image} {caption}" for caption in range(5)] for image in range(3)])
    seen = []
    caption_scores(captions, lambda *texts: seen.append([*map(set, texts)]) or encoder(*texts), "max")
    assert len(seen) == 5 and all(not queries & gallery for queries, gallery in seen)
    assert Captions.of(IMAGES).repeats().tolist() == (
        [False] * 5 + [True, True, False, False, True] + [True] * 5 + [False] * 4
    )


def test_recalls_without_repeats_are_those_of_loops() -> None:
    captions = Captions.of(IMAGES)
    scores = np.random.default_rng(1).normal(size=(4, len(captions.texts)))
    kept = ~captions.repeats()
    found = recalls_of(scores, captions, kept)
    t2i, i2t = [], []
    for column in np.flatnonzero(kept):
        own = captions.owner[column]
        t2i.append(sum(scores[:, column] > scores[own, column]))
    for image in range(4):
        right = [scores[image, c] for c in np.flatnonzero(kept) if captions.owner[c] == image]
        if right:
            i2t.append(sum(scores[image, c] > max(right) for c in np.flatnonzero(kept)))
    assert len(i2t) == 3  # the third image has no caption of its own left, but stays in every caption's ranking
    for name, places in (("i2t", i2t), ("t2i", t2i)):
        for k in (1, 5, 10):
            assert getattr(found, f"{name}_r{k}") == pytest.approx(100 * np.mean([place < k for place in places]))
    assert recalls_of(scores, captions) == recalls(*ranks(scores, captions.owner))


def test_the_share_of_a_fusion_is_the_best_on_validation() -> None:
    captions = Captions.of([[f"{image} {caption}" for caption in range(5)] for image in range(8)])
    draw, right = np.random.default_rng(3), np.equal.outer(np.arange(8), captions.owner)
    one, two = (right + scale * draw.normal(size=right.shape) for scale in (0.9, 0.6))
    fusion = fit_fusion(10 * one, two, captions)
    mixed = {s: recalls_of((1 - s) * one / one.std() + s * two / two.std(), captions).mr for s in SHARES}
    assert fusion.share == max(mixed, key=mixed.__getitem__) and 0 < fusion.share < 1
    assert fusion.scores(10 * one, two) == pytest.approx(
        (1 - fusion.share) * one / one.std() + fusion.share * two / two.std()
    )


def test_a_tower_encodes_each_text_once(monkeypatch) -> None:
    tower = TowerEncoder(named_backbone("tiny"))
    encode, asked = tower._texts, []
    monkeypatch.setattr(tower, "_texts", lambda texts: asked.extend(texts) or encode(texts))
    first = tower(["a pond", "a farm"], ["a pond", "water"])
    assert first[0, 0] == pytest.approx(1, abs=1e-6) and first.shape == (2, 2)
    assert tower(["water"], ["a farm", "a pond"])[0, 1] == first[0, 1]
    assert sorted(asked) == ["a farm", "a pond", "water"]


def test_bm25_is_fitted_on_the_gallery_alone() -> None:
    gallery = ["a pond", "a farm of trees"]
    assert np.array_equal(text_encoder("bm25")(["pond"], gallery), BM25(gallery).scores(["pond"]))


def annotations(path: Path, val: bool) -> Path:
    rng = np.random.default_rng(0)
    words = [f"w{word}" for word in range(30)]
    splits = ["train"] * 12 + ["val" if val else "train"] * 4 + ["test"] * 6
    images = []
    for number, split in enumerate(splits):
        own = rng.choice(words, 4, replace=False)
        texts = [" ".join(rng.permutation(own)[:3]) for _ in range(5)]
        if number == len(splits) - 1:
            texts = texts[:1] * 5
        images.append({"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": text} for text in texts]})
    path.write_text(json.dumps({"images": images}))
    return path


@pytest.mark.parametrize("val", [True, False])
def test_the_command_writes_and_prints_every_combination(tmp_path, val) -> None:
    file = annotations(tmp_path / "dataset.json", val)
    arguments = ["--dataset-json", str(file), "--out", str(tmp_path / "c.csv"), "--record", str(tmp_path / "r.json")]
    done = CliRunner().invoke(app, [*arguments, "--encoder", "bm25", "--encoder", "tiny"], catch_exceptions=False)
    assert done.exit_code == 0
    table = pd.read_csv(tmp_path / "c.csv")
    assert len(table) == 3 * 2 * 2 and set(table["encoder"]) == {"bm25", "tiny", "bm25 + tiny"}
    assert set(table.loc[table["queries"] == "all", "captions"]) == {30}
    assert set(table.loc[table["queries"] != "all", "images"]) <= {4, 5}
    assert "of the 30 captions are also another caption of their image" in done.output
    assert "annotations_sha256" in json.loads((tmp_path / "r.json").read_text())
    best = table[(table["encoder"] == "bm25") & (table["reduce"] == "max") & (table["queries"] == "all")].iloc[0]
    test = [entry for entry in json.loads(file.read_text())["images"] if entry["split"] == "test"]
    own = Captions.of([[sentence["raw"] for sentence in entry["sentences"]] for entry in test])
    assert best["mr"] == pytest.approx(recalls_of(caption_scores(own, text_encoder("bm25"), "max"), own).mr, abs=0.005)


def test_an_unknown_encoder_and_single_captions_are_refused(tmp_path) -> None:
    file = annotations(tmp_path / "dataset.json", True)
    with pytest.raises(UserError, match="backbone model 'word2vec' is unknown"):
        ceiling_table(file, ["word2vec"])
    with pytest.raises(UserError, match="--encoder: bm25 appears more than once"):
        ceiling_table(file, ["bm25", "bm25"])
    with pytest.raises(UserError, match="at least two captions"):
        Captions.of([["a"], ["b", "c"]])
