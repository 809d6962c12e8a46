"""What is wrong with annotations is named, with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_cases import COLUMN, csv_of, json_of, jsonl_of, read
from data_cases import entry

from cmer.config.datasets import ColumnLabels
from cmer.data.annotations import read_annotations
from cmer.data.labels import labels_of
from cmer.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header has nothing; expected file"),
        ("\n\n", "the header has nothing"),
        ("file,caption\n", "contains no image"),
        ("name,title\na.jpg,a\n", "the header has 'name', 'title'; expected file"),
        ("file,filename,caption\n", "the header has 'file', 'filename', 'caption'; expected"),
        ("file,caption,file\n", "more than one column 'file'"),
        ("file;caption\na.jpg;a field\n", "separated by semicolons; save it with commas"),
        ("file\tcaption\na.jpg\ta field\n", "separated by tabs; save it with commas"),
        ("file,caption\na.jpg,one, two\n", "line 2 has 3 cells, the header has 2; put captions that contain a comma"),
        ("file,caption\n\na.jpg\n", "line 3 has 1 cells"),
        ('file,caption\na.jpg,"no end\nb.jpg,x\n', r"captions\.csv: line 3 is not CSV: .*check its double quotes"),
        ('file,caption\na.jpg,"a"b\n', "line 2 is not CSV"),
        ("file,caption,split\na.jpg,x,valid\n", r"line 2 is not valid:\n.*split.*'train', 'val'.*'valid'"),
        (
            "file,caption,split\na.jpg,x,train\na.jpg,y,test\n",
            "line 3 sets the split of a.jpg to 'test', an earlier line to 'train'",
        ),
        ("file,caption,label\na.jpg,x,p\na.jpg,y,q\n", "line 3 sets the label of a.jpg to 'q', an earlier line to 'p'"),
        ("file,caption,split\na.jpg,x,train\nb.jpg,y,test\nc.jpg,z,\n", r"names no split for c\.jpg; assign train"),
        ("file,captions\na.jpg,x\n", "line 2: `captions` is not a list"),
        ("file,caption\na.jpg,caf\xe9\n".encode("latin-1"), r"not UTF-8 text: byte 0xe9 in line 2; save it as UTF-8"),
        ("file,caption\na.jpg,x\n".encode("utf-16"), "not UTF-8 text: byte 0xff in line 1"),
        ("file,caption\n,x\n", "''.* must not be empty"),
    ],
)
def test_a_csv_out_of_layout_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(csv_of(tmp_path, text))


def test_what_rows_say_beside_caption_split_and_label_may_differ(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "file,caption,by,scene\na.jpg,x,Ann,farm\na.jpg,y,Ben,farm\n")
    (found,) = read(path, ColumnLabels(column="scene"))
    assert found.captions == ["x", "y"] and labels_of([found], ColumnLabels(column="scene"), Path()) == ["farm"]
    with pytest.raises(UserError, match=r"the by of a\.jpg to 'Ben', an earlier line to 'Ann'"):
        read(path, ColumnLabels(column="by"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([7], "line 1 is not an object"),
        ([{"file": "a.jpg", "caption": "x"}, {"file": "b.jpg"}], "line 2 has 'file'; expected"),
        ([{"file": "a.jpg", "caption": "x", "captions": ["y"]}], "line 1 has 'file', 'caption', 'captions'; expected"),
        ([{"file": "a.jpg", "captions": "x"}], "line 1: `captions` is not a list"),
        ([{"file": "a.jpg", "captions": [1]}], r"line 1 is not valid:\n.*sentences\.0\.raw.*valid string \(given: 1\)"),
        ([{"file": "a.jpg", "caption": None}], r"line 1 is not valid"),
        ([{"file": ["a.jpg"], "caption": "x"}], r"line 1 is not valid:\n.*filename"),
        ([{"file": "a\udce9.jpg", "caption": "x"}], r"'a\\udce9\.jpg'.*control character"),
        ([], "contains no image"),
    ],
)
def test_a_jsonl_out_of_layout_is_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(jsonl_of(tmp_path, *rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file": "a.jpg", "caption": "x"}\n{"file": "b', "line 2 is not valid JSON"),
        (
            '{"file": "a.jpg", "file": "b.jpg", "caption": "x"}',
            "line 1 is not valid JSON: the key 'file' appears twice",
        ),
        ("[" * 100_000, "line 1 is not valid JSON"),
        ('{"file": "a.jpg", "caption": "x", "n": ' + "9" * 5000 + "}", "line 1 is not valid JSON"),
    ],
)
def test_a_line_that_is_no_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[1, 2]", "has no list `images`"),
        ("null", "has no list `images`"),
        ("3.5", "has no list `images`"),
        ('{"images": {"a.jpg": {}}}', "has no list `images`"),
        ('{"images": []}', "contains no image"),
        ('{"images": [null]}', r"images\[0\] \(not an object\)"),
        (
            '{"images": [{"filename": "a.jpg", "split": "train", "sentences": {"raw": "x"}}]}',
            r"\(a\.jpg\).*\n.*sentences",
        ),
        ('{"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": 4}]}]}', r"sentences\.0\.raw"),
        ('{"images": [{"filename": "a.jpg", "split": "train", "sentences": ["x"]}]}', r"sentences\.0"),
        ('{"images": [{"filename": {"a": 1}, "split": "train", "sentences": []}]}', r"\(no name\)"),
        ('{"images": [{"filename": "a.jpg", "split": null, "sentences": []}]}', r"split.*None"),
        ('{"images": [], "images": []}', "the key 'images' appears twice"),
        ('{"images": [', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_json_out_of_layout_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_annotations(path)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_json_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "dataset.json"
    data = {"images": [entry("a.jpg", captions=("un café",)), entry("b.jpg", "test")]}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    if encoding == "utf-8-sig":
        assert read_annotations(path)[0].captions == ["un café"]
    else:
        with pytest.raises(UserError, match=r"dataset\.json is not UTF-8 text: .*; save it as UTF-8"):
            read_annotations(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd.jpg", "outside the image folder"),
        ("../a.jpg", "outside the image folder"),
        ("b/../../a.jpg", "outside the image folder"),
        ("..", "outside the image folder"),
        ("", "must not be empty"),
        (".", "must not be empty"),
        ("b\\a.jpg", "or backslash; write / between folders"),
        ("a\n.jpg", r"'a\\n\.jpg'.*must not .*contain a control character"),
        ("a\0.jpg", "must not .*contain a control character"),
        ("a\x1b[2J.jpg", r"'a\\x1b\[2J\.jpg'"),
        ("./other.jpg", "appears more than once"),
        (".//other.jpg", "appears more than once"),
        ("other.jpg", "appears more than once"),
    ],
)
def test_names_that_lie_elsewhere_or_twice_are_errors(tmp_path: Path, name: str, message: str) -> None:
    path = json_of(tmp_path, {"images": [entry("other.jpg"), entry("test.jpg", "test"), entry(name)]})
    with pytest.raises(UserError, match=message):
        read_annotations(path)


@pytest.mark.parametrize(
    "name", ["Other.JPG", "a, b.jpg", 'a "b".jpg', " a .jpg", "..a.jpg", "é.jpg", "\U0001f333.jpg", "x" * 5000 + ".jpg"]
)
def test_other_names_are_names(tmp_path: Path, name: str) -> None:
    path = json_of(tmp_path, {"images": [entry("other.jpg"), entry("test.jpg", "test"), entry(name)]})
    assert read_annotations(path)[2].filename == name


@pytest.mark.parametrize("label", [["a", "b"], {"a": 1}, True, 1.5])
def test_a_label_that_is_no_name_is_an_error(tmp_path: Path, label: Any) -> None:
    entries = read(jsonl_of(tmp_path, {"file": "a.jpg", "caption": "x", "label": label}))
    with pytest.raises(UserError, match=r"a\.jpg: label is a \w+; give the name of one class"):
        labels_of(entries, COLUMN, Path())


def test_numbers_are_labels_too(tmp_path: Path) -> None:
    rows = [
        {"file": f"{i}.jpg", "caption": "x", "label": value} for i, value in enumerate([0, 7, None, "", "a\0\ud800 b"])
    ]
    assert labels_of(read(jsonl_of(tmp_path, *rows)), COLUMN, Path()) == ["0", "7", "", "", "a b"]
