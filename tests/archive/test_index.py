"""What an index run does to an archive: new, changed, gone, touched, relabelled, broken, and interrupted."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archive_cases import Colours, square
from PIL import Image

from cmer.archive import index as indexing
from cmer.archive.files import Found, Known, plan, read_labels
from cmer.archive.index import index
from cmer.archive.settings import Tiling
from cmer.archive.store import Archive, writing
from cmer.errors import UserError


def run(folder: Path, store: Path, model: Colours | None = None, **how) -> indexing.Summary:
    return index(folder, store, model or Colours(), "colours", **how)


def content(store: Path) -> list[dict]:
    """All rows of an archive, by file and tile; vectors rounded."""
    archive = Archive.open(store)
    rows = archive.read(archive.table.schema.names).read_all().to_pylist()
    for row in rows:
        row["vector"] = [round(number, 5) for number in row["vector"]]
    return sorted(rows, key=lambda row: (row["file"], row["box"]))


def test_every_image_has_a_row_with_its_embedding_label_and_size(folder: Path, store: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    square(folder / ".hidden" / "x.png", (1, 2, 3))
    assert str(run(folder, store)) == "12 embedded, 0 removed, 0 unchanged"
    rows = content(store)
    assert [row["file"] for row in rows] == sorted(f"{c}/{n}.png" for c in ("red", "green", "blue") for n in range(4))
    for row in rows:
        path = folder / row["file"]
        assert row["label"] == path.parent.name and row["size"] == path.stat().st_size
        assert row["box"] == [0, 0, 16, 16] and row["scene_size"] == [16, 16]
        np.testing.assert_allclose(row["vector"], Colours().encode_images([path])[0], atol=1e-5)
    assert len({row["id"] for row in rows}) == 12


def test_a_second_run_embeds_what_is_new_or_changed_and_removes_what_is_gone(folder: Path, store: Path) -> None:
    run(folder, store)
    before = {row["file"]: row for row in content(store)}
    for number in (7, 8):
        square(folder / "red" / f"{number}.png", (200, 10, 10), seed=number)
    square(folder / "blue/0.png", (9, 9, 250), seed=99)
    for number in (1, 2):
        (folder / f"green/{number}.png").unlink()
    model = Colours()
    assert str(run(folder, store, model)) == "3 embedded, 2 removed, 9 unchanged"
    assert model.images == 3
    after = {row["file"]: row for row in content(store)}
    assert set(after) == set(before) - {"green/1.png", "green/2.png"} | {"red/7.png", "red/8.png"}
    assert {file for file in before.keys() & after if before[file] != after[file]} == {"blue/0.png"}
    assert str(run(folder, store, model)) == "0 embedded, 0 removed, 12 unchanged" and model.images == 3


def test_touched_and_relabelled_images_are_not_embedded_again(folder: Path, store: Path) -> None:
    run(folder, store)
    os.utime(folder / "red/0.png", ns=(1, 1))
    model = Colours()
    summary = run(folder, store, model, labels={"red/0.png": "it's", "red/1.png": "x"})
    assert (summary.embedded, summary.updated, model.images) == (0, 12, 0)
    rows = {row["file"]: row for row in content(store)}
    assert rows["red/0.png"]["label"] == "it's" and rows["red/0.png"]["mtime_ns"] == 1
    assert rows["red/2.png"]["label"] == "" and len(rows) == 12
    assert run(folder, store, labels={"red/0.png": "it's", "red/1.png": "x"}).updated == 0


def test_unreadable_images_are_named_and_skipped_until_they_are_mended(folder: Path, store: Path) -> None:
    (folder / "red/empty.png").write_bytes(b"")
    (folder / "red/cut.png").write_bytes((folder / "red/0.png").read_bytes()[:60])
    Image.fromarray(np.zeros((8, 8), np.int32) + 70_000).save(folder / "red/deep.tif")
    summary = run(folder, store)
    assert [file for file, _ in summary.skipped] == ["red/cut.png", "red/deep.tif", "red/empty.png"]
    assert dict(summary.skipped)["red/empty.png"] == "the file is empty"
    assert "--bands" in dict(summary.skipped)["red/deep.tif"]
    assert str(summary) == "12 embedded, 0 removed, 0 unchanged, 3 skipped"
    square(folder / "red/cut.png", (250, 0, 0))
    assert run(folder, store).embedded == 1 and len(content(store)) == 13


def test_an_image_that_breaks_leaves_the_archive(folder: Path, store: Path) -> None:
    run(folder, store)
    (folder / "red/0.png").write_bytes(b"broken")
    summary = run(folder, store)
    assert [file for file, _ in summary.skipped] == ["red/0.png"]
    assert "red/0.png" not in [row["file"] for row in content(store)]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_run_is_resumed_without_loss_or_doubles(
    folder: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Also in the middle of the tiles of a scene."""
    square(folder / "blue/scene.png", (5, 90, 200), side=100)
    tiling = Tiling(tile=32, overlap=8)
    run(folder, tmp_path / "whole.lance", tiling=tiling)
    monkeypatch.setattr(indexing, "ENCODED_AT_ONCE", 4)
    monkeypatch.setattr(indexing, "ROWS_PER_COMMIT", 4)
    model, encode = Colours(), Colours.encode_images

    def until(images):
        if model.images >= 4 * after:
            raise Interrupted
        return encode(model, images)

    monkeypatch.setattr(model, "encode_images", until)
    with pytest.raises(Interrupted):
        run(folder, store, model, tiling=tiling)
    assert len(content(store)) == 4 * after
    rest = Colours()
    run(folder, store, rest)
    assert content(store) == content(tmp_path / "whole.lance")
    assert rest.images == len(content(store)) - 4 * after


def test_another_model_tiling_or_folder_is_refused(folder: Path, store: Path, tmp_path: Path) -> None:
    run(folder, store)
    for how, sentence in (
        ({"model": Colours("b")}, "give --run colours, or index the folder into another --store"),
        ({"tiling": Tiling(tile=64, overlap=0)}, "other values of --tile and --overlap"),
        ({"folder": square(tmp_path / "other/a.png", (1, 1, 1)) or tmp_path / "other"}, "is an archive of"),
    ):
        with pytest.raises(UserError, match=sentence):
            run(**{"folder": folder, "store": store} | how)
    assert len(content(store)) == 12


def test_a_folder_that_has_moved_is_followed(folder: Path, store: Path, tmp_path: Path) -> None:
    run(folder, store)
    shutil.move(folder, tmp_path / "moved")
    assert str(run(tmp_path / "moved", store)) == "0 embedded, 0 removed, 12 unchanged"
    assert Archive.open(store).settings.folder == str(tmp_path / "moved")


def test_an_empty_folder_removes_nothing(folder: Path, store: Path) -> None:
    """Such as a mount point whose disk is not mounted."""
    run(folder, store)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(UserError, match="contains no image"):
        run(folder, store)
    assert len(content(store)) == 12


def test_one_process_writes_at_a_time(folder: Path, store: Path) -> None:
    with writing(store), pytest.raises(UserError, match="another `cmer index` is writing"):
        run(folder, store)


def test_a_folder_of_something_else_is_no_archive(folder: Path, tmp_path: Path) -> None:
    for path, sentence in ((folder, "holds blue"), (folder / "red/0.png", "holds a file")):
        with pytest.raises(UserError, match=sentence):
            run(folder, path)
    with pytest.raises(UserError, match="cmer index FOLDER"):
        Archive.open(tmp_path / "nothing.lance")
    assert not (folder / "write.lock").exists()


def test_a_file_with_rows_of_two_contents_is_embedded_afresh(folder: Path, store: Path) -> None:
    """As two machines leave it that index different copies at once."""
    run(folder, store)
    before, archive = content(store), Archive.open(store)
    rows = archive.read(archive.table.schema.names, "file = 'red/0.png'").read_all().to_pylist()
    other = [row | {"id": "0" * 20, "sha256": "0" * 64} for row in rows]
    archive.add(pa.Table.from_pylist(other, schema=archive.table.schema))
    assert str(run(folder, store)) == "1 embedded, 0 removed, 11 unchanged"
    assert content(store) == before


def test_the_plan_compares_stamps_first_and_contents_second() -> None:
    asked = []

    def sha256(file: str) -> str:
        asked.append(file)
        return "same"

    before = {
        "same": Known("a", 1, 1, "x", True), "touched": Known("a", 1, 1, "same", True),
        "changed": Known("a", 1, 1, "x", True), "half": Known("a", 1, 1, "x", False), "mixed": None,
        "gone": Known("a", 1, 1, "x", True),
    }  # fmt: skip
    stamps = {"same": 1, "touched": 2, "changed": 2, "half": 1, "mixed": 1, "new": 1}
    result = plan([Found(name, "a", 1, stamp) for name, stamp in stamps.items()], before, sha256)
    assert [file.file for file in result.embed] == ["changed", "half", "mixed", "new"]
    assert result.partial == ["half"] and set(result.remove) == {"changed", "mixed", "gone"} and result.gone == 1
    assert result.update == {"touched": {"label": "a", "size": 1, "mtime_ns": 2}} and result.unchanged == 2
    assert asked == ["touched", "changed"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,label\na,b\n", "expected file,label"),
        ("file,label\na\n", "line 2 has 1 cells"),
        ("file,label\na,b\na,c\n", "second label"),
    ],
)
def test_a_list_of_labels_that_is_wrong_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_labels(tmp_path / "labels.csv")


def test_labels_of_images_that_are_not_there_are_refused(folder: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("label, file\npond, red/0.png\n\nlake,red/none.png\n")
    labels = read_labels(tmp_path / "labels.csv")
    assert labels == {"red/0.png": "pond", "red/none.png": "lake"}
    with pytest.raises(UserError, match=r"red/none\.png"):
        run(folder, store, labels=labels)
