"""Layouts of annotations."""

from pathlib import Path
from typing import Any

import pytest
from annotation_cases import COLUMN, csv_of, json_of, jsonl_of, read

from cmer.config.datasets import FolderDataset, FolderLabels, PrefixLabels
from cmer.data.annotations import Entry, normalise_whitespace, read_annotations, read_entries
from cmer.data.labels import labels_of
from cmer.data.layout import layout_of
from cmer.errors import UserError

ROWS = [
    ("b/1.tif", "one, two", "test", "harbour"),
    ("a 2.jpg", 'a "field"', "train", "farm land"),
    ("b/1.tif", "码头里的船", "test", "harbour"),
]


def told(entries: list[Entry]) -> list[tuple[str, str, list[str], str]]:
    labels = labels_of(entries, COLUMN, Path())
    return [(e.filename, e.split, e.captions, label) for e, label in zip(entries, labels, strict=True)]


EXPECTED = [
    ("b/1.tif", "test", ["one, two", "码头里的船"], "harbour"),
    ("a 2.jpg", "train", ['a "field"'], "farm land"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("header", ["file,caption,split,label", "filename, caption, split, label"])
def test_a_csv_has_a_row_a_caption(tmp_path: Path, header: str, start: str, end: str) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in ROWS]
    assert told(read(csv_of(tmp_path, start + end.join([header, *quoted, ""])))) == EXPECTED


def test_space_after_a_comma_does_not_count(tmp_path: Path) -> None:
    path = csv_of(tmp_path, 'file, caption, split\n a.jpg, "one, two", test\n\nb.jpg, three , train\n')
    assert [(e.filename, e.captions, e.split) for e in read(path)] == [
        ("a.jpg", ["one, two"], "test"),
        ("b.jpg", ["three"], "train"),
    ]


def test_a_jsonl_has_a_caption_or_a_list_of_them_a_line(tmp_path: Path) -> None:
    keys = ("file", "caption", "split", "label")
    assert told(read(jsonl_of(tmp_path, *(dict(zip(keys, row, strict=True)) for row in ROWS)))) == EXPECTED
    both = {"filename": "b/1.tif", "captions": ["one, two", "码头里的船"], "split": "test", "label": "harbour"}
    other = {"file": "a 2.jpg", "caption": 'a "field"', "split": "train", "label": "farm land", "size": [3, 4]}
    assert told(read(jsonl_of(tmp_path, both, other))) == EXPECTED


def test_the_published_layout_may_lack_splits_in_a_folder_of_ones_own_only(tmp_path: Path) -> None:
    images = [{"filename": f"pond_{i}.jpg", "sentences": [{"raw": "a pond"}]} for i in range(3)]
    path = json_of(tmp_path, {"images": images})
    assert [entry.split for entry in read(path)] == ["", "", ""]
    with pytest.raises(UserError, match=r"names no split for pond_0\.jpg, pond_1\.jpg, pond_2\.jpg"):
        read_annotations(path)


def test_class_folders_are_read_by_name_and_depth(tmp_path: Path) -> None:
    for name in (
        "Forest/2020/b.TIF",
        "Forest/a.jpg",
        "storage_tanks/1.png",
        ".cache/1.png",
        "Forest/._a.jpg",
        "x/notes.txt",
    ):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/9.webp").touch()
    (tmp_path / "images/linked").symlink_to(tmp_path / "elsewhere")
    options = FolderDataset(source="folder", title="x", root=str(tmp_path), annotations=None)
    layout = layout_of(options, tmp_path)
    entries = read_entries(layout)
    names = ["Forest/2020/b.TIF", "Forest/a.jpg", "linked/9.webp", "storage_tanks/1.png"]
    assert [entry.filename for entry in entries] == names and {entry.split for entry in entries} == {""}
    assert labels_of(entries, layout.labels, layout.root) == ["forest", "forest", "linked", "storage tanks"]


def test_labels_come_from_where_the_layout_has_them(tmp_path: Path) -> None:
    def labels(**settings: Any) -> object:
        return layout_of(FolderDataset(source="folder", title="x", root=str(tmp_path), **settings), tmp_path).labels

    assert labels(annotations="dataset.json") == PrefixLabels()
    assert labels(annotations="a.csv") == labels(annotations="a.jsonl") == COLUMN
    assert labels(annotations=None) == FolderLabels()
    assert labels(annotations="a.csv", labels={"rule": "folder"}) == FolderLabels()


def test_white_space_and_control_characters_become_one_space() -> None:
    assert normalise_whitespace("\ufffe a\t\tb\r\nc\0d\x1be\x85f\u2028g\u3000 ") == "\ufffe a b c d e f g"
    assert (
        normalise_whitespace("a \ud83d") == "a" and normalise_whitespace("a \ud800b") == "a b"
    )  # halves of characters, as cutting a text leaves
    assert (
        normalise_whitespace("a\u200db \U0001f469\u200d\U0001f33e \u202eabc")
        == "a\u200db \U0001f469\u200d\U0001f33e \u202eabc"
    )
