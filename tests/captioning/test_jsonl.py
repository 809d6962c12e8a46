"""Precomputed rich texts, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from cmer.captioning.build import build
from cmer.captioning.jsonl.options import JsonlOptions
from cmer.config.base import validate
from cmer.errors import UserError

GOOD = {"file": "a.png", "captions": {"sentence": "a red roof", "keywords": ["roof", "red"]}}


def captioner(folder: Path, *rows: Any) -> Any:
    path = folder / "rich.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return build(validate(JsonlOptions, {"kind": "jsonl", "path": str(path)}, "captioner"))


def test_texts_are_those_of_the_file(tmp_path: Path) -> None:
    made = captioner(tmp_path, GOOD, {"filename": "b.png", "captions": {"paragraph": "Ü."}, "model": "x"}, "")
    assert made.caption(["b.png", "a.png"], []) == [
        {"paragraph": ["Ü."]},
        {"sentence": ["a red roof"], "keywords": ["roof", "red"]},
    ]


def test_unknown_images_are_counted_and_missing_ones_named(tmp_path: Path) -> None:
    made = captioner(tmp_path, GOOD, GOOD | {"file": "b.png"}, GOOD | {"file": "c.png"})
    assert made.check(["b.png"]) == {"unknown_images": 2}
    with pytest.raises(UserError, match=r"rich.jsonl has no texts of image y.png and 1 more; add them"):
        made.check(["y.png", "a.png", "z.png"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[]", "line 2 is not an object"),
        (GOOD, "line 2 repeats image a.png; put all of its texts into one line"),
        ({"file": 3, "captions": {"sentence": "x"}}, "line 2: the file name is 3, not a text"),
        ({"file": "b.png"}, "line 2 has 'file'; expected"),
        ({"file": "b.png", "captions": "x"}, "line 2: captions is not an object such as"),
        ({"file": "b.png", "captions": {}}, "line 2: captions is not an object such as"),
        ({"file": "b.png", "captions": {"sentence": " "}}, "line 2: sentence has a blank text; remove it"),
        ({"file": "b.png", "captions": {"sentence": ["x", ""]}}, "line 2: sentence has a blank text; remove it"),
        ({"file": "b.png", "captions": {"sentence": []}}, "line 2: sentence is not a text or a list of texts"),
        ({"file": "b.png", "captions": {"sentence": 7}}, "line 2: sentence is not a text or a list of texts"),
        ({"file": "b.png", "captions": {"sentence": ["x", None]}}, "line 2: sentence is not a text or a list of texts"),
        ({"file": "b.png", "captions": {"A b": "x"}}, "line 2: the granularity 'A b' is not made of a-z, 0-9 and _"),
    ],
)
def test_a_bad_line_is_one_sentence_with_its_number(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        captioner(tmp_path, GOOD, row)
    assert f"rich.jsonl: {message}" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl does not exist"):
        build(validate(JsonlOptions, {"kind": "jsonl", "path": str(tmp_path / "none.jsonl")}, "captioner"))
