import json
from pathlib import Path

import pytest
from data_cases import Options, entry
from typer.testing import CliRunner

from cmer.cli.data import app
from cmer.data.frames import QUERIES, read_frame
from cmer.data.pairs import Pairs
from cmer.errors import UserError
from cmer.io import read_json


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.output


def test_from_drawing_to_queries(tmp_path: Path) -> None:
    spec = json.dumps({"source": "demo", "title": "demo", "images_per_class": 5, "size": 32})
    folder, out, queries = tmp_path / "demo", tmp_path / "captions.csv", tmp_path / "queries.csv"
    validation = folder / "validation.seed7.csv"
    call("draw", "--spec", spec, "--folder", folder)
    call("prepare", "--spec", spec, "--folder", folder, "--record", tmp_path / "record.json")
    call("split", "--folder", folder, "--seed", 7, "--out", validation)
    call("augment", "--spec", spec, "--folder", folder, "--out", out, "--queries", queries)
    pairs = Pairs.read(folder, out, validation)
    assert len(pairs.val_images) == 16 and len(pairs.test_images) == 16 and len(pairs.train_images) == 48
    assert all(text.endswith(plain) and text != plain for text, plain in zip(pairs.prompts, pairs.texts, strict=True))
    asked = read_frame(queries, QUERIES)
    assert asked["none"].tolist() == [pairs.texts[i] for i in asked["caption_id"]]
    assert asked["oracle"].tolist() == [pairs.prompts[i] for i in asked["caption_id"]]
    assert (asked["shuffled"] != asked["oracle"]).all()
    assert read_json(tmp_path / "record.json")["findings"] == []


def test_warnings_are_shown(published: Options, tmp_path: Path) -> None:
    options = published(entry("1.jpg"), entry("port_1.jpg", "test"))
    shown = call("prepare", "--spec", options.model_dump_json(), "--folder", tmp_path / "fields")
    assert "warning: 1 images have no scene label" in shown


def test_a_wrong_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--spec is not valid JSON"):
        call("prepare", "--spec", "{", "--folder", tmp_path)
    with pytest.raises(UserError, match="unknown key 'imagse'"):
        published = {"source": "folder", "title": "x", "root": "r", "imagse": "i"}
        call("prepare", "--spec", json.dumps(published), "--folder", tmp_path)
    with pytest.raises(UserError, match="that of x is folder"):
        call("draw", "--spec", json.dumps({"source": "folder", "title": "x", "root": "r"}), "--folder", tmp_path)
