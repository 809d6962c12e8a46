"""Sources in order, and what becomes of a copy in whatever form it comes."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fetch_cases import (
    IMAGES,
    PREFIXES,
    Files,
    annotations,
    assert_whole,
    known,
    layout,
    local,
    make_folder,
    make_parquet,
    make_tar,
    make_zip,
    tar_of,
)
from typer.testing import CliRunner

from cmer.cli.data import app
from cmer.data.annotations import Entry
from cmer.data.cards import card
from cmer.data.fetch import copies, fetch_dataset
from cmer.data.fetch.copies import pack
from cmer.data.fetch.hub import archive_parquet
from cmer.data.fingerprint import compare, fingerprint_of
from cmer.data.images import TarImages
from cmer.errors import UserError

LABELS = PREFIXES | {"00001.jpg": "bridge"}
FORMS: dict[str, Callable[[Path, Files], Path]] = {
    "folder": make_folder, "a.zip": make_zip, "a.tar": make_tar, "a.tar.gz": make_tar, "a.tgz": make_tar,
    "a.tar.xz": make_tar, "a.tar.bz2": make_tar,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_copy_gives_the_same_bytes(form: str, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path / form, layout())
    fetched = fetch_dataset(known(local(path)), tmp_path / "out")
    assert_whole(tmp_path / "out", LABELS)
    assert (fetched.source, fetched.skipped, fetched.warnings) == (str(path), [], [])


def test_parquet_gives_these_bytes_too(tmp_path: Path) -> None:
    archive_parquet(make_parquet(tmp_path / "hub"), "dataset_rsicd.json", tmp_path / "hub.tar")
    (warning,) = pack(tmp_path / "hub.tar", "rsicd", card("rsicd"), tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert warning.startswith("no class lists in txtclasses_rsicd: 1 images have no scene label")
    assert warning.endswith(card("rsicd").by_hand)
    make_folder(tmp_path / "copy", layout("", lists=False))
    fetch_dataset(known(local(tmp_path / "copy")), tmp_path / "again")
    for name in ("images.tar", "dataset.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_what_is_packed_is_read_back(tmp_path: Path) -> None:
    fetch_dataset(known(local(make_zip(tmp_path / "a.zip", layout()))), tmp_path / "out")
    store = TarImages(tmp_path / "out/images.tar")
    assert {name: store.read(name) for name in IMAGES} == IMAGES


def test_one_archive_may_hold_several_datasets(tmp_path: Path) -> None:
    others = {f"all/rsitmd/images/{name}": b"another" for name in IMAGES} | {"all/thumbs/pond_1.jpg": b"small"}
    both = layout("all/rsicd/", lists=False) | {"all/rsitmd/dataset_RSITMD.json": annotations()} | others
    path = make_zip(tmp_path / "all.zip", both)
    fetch_dataset(known(local(path)), tmp_path / "rsicd")
    assert_whole(tmp_path / "rsicd")
    fetch_dataset(known(local(path), name="rsitmd"), tmp_path / "rsitmd")
    assert (tmp_path / "rsitmd/images.tar").read_bytes() == tar_of(dict.fromkeys(IMAGES, b"another"))


@pytest.mark.parametrize("lost", [None, b""])
def test_a_copy_that_lacks_an_image_is_passed_over(lost: bytes | None, tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {**layout(), "RSICD/some_pictures/pond_1.jpg": lost}
    partial = make_zip(tmp_path / "partial.zip", {name: data for name, data in files.items() if data is not None})
    fetched = fetch_dataset(known(local(partial), local(make_folder(tmp_path / "whole", layout()))), tmp_path / "out")
    assert fetched.skipped == [f"{partial}: 1 of the 5 annotated images are missing or empty: pond_1.jpg"]
    assert_whole(tmp_path / "out", LABELS)


def test_a_dataset_without_labels_has_none(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "copy", layout("", "dataset.json"))
    assert fetch_dataset(known(local(path), name="sydney"), tmp_path / "out").warnings == []
    assert_whole(tmp_path / "out", dict.fromkeys(IMAGES, ""), "sydney")


def test_captions_come_on_one_line_and_whole(tmp_path: Path) -> None:
    spoilt = annotations().replace(b"a view of 00001.jpg .", b"a \\ud800 view\\n of  00001.jpg .")
    fetch_dataset(known(local(make_folder(tmp_path / "copy", layout() | {"RSICD/dataset_rsicd.json": spoilt}))), "out")
    assert_whole(Path("out"), LABELS)


def test_the_first_source_that_gives_the_dataset_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_ROOT", raising=False)
    good = make_zip(tmp_path / "good.zip", layout())
    broken = tmp_path / "broken.zip"
    broken.write_bytes(good.read_bytes()[:-40])
    sources = [local("${NO_SUCH_ROOT}/rsicd"), local(tmp_path / "absent"), local(broken), local(good)]
    fetched = fetch_dataset(known(*sources, local(tmp_path / "never looked at")), tmp_path / "out")
    assert_whole(tmp_path / "out", LABELS)
    assert fetched.source == str(good)
    unset, absent, cut = fetched.skipped
    assert "environment variable NO_SUCH_ROOT is not set" in unset
    assert absent == f"{tmp_path}/absent: {tmp_path}/absent does not exist"
    assert cut.startswith(f"{broken}: {broken} cannot be read")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("pipe", "is a pipe, not a regular file"),
        ("/dev/zero", "is a device"),
        ("/proc/self/environ", "is empty"),
        ("out/copy", "would be overwritten"),
    ],
)
def test_a_source_that_never_ends_or_is_the_output_is_passed_over(tmp_path: Path, place: str, reason: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    make_folder(tmp_path / "out/copy", layout())
    with pytest.raises(UserError, match=reason):
        fetch_dataset(known(local(tmp_path / place)), tmp_path / "out")


def test_no_source_left_tells_every_reason_and_what_to_do(tmp_path: Path) -> None:
    rar = tmp_path / "images.rar"
    rar.write_bytes(b"Rar!\x1a\x07\x01\x00 more")
    empty = make_folder(tmp_path / "empty", {"readme.txt": b""})
    bare = make_folder(tmp_path / "bare", {"dataset_rsicd.json": annotations()})
    other = make_folder(tmp_path / "other", {"dataset_rsicd.json": b'{"images": [{"filename": "a.jpg"}]}'})
    with pytest.raises(UserError) as error:
        fetch_dataset(known(*map(local, (rar, empty, bare, other))), tmp_path / "out")
    for reason in (
        "no source provides RSICD:",
        f"- {rar}: {rar} is a RAR archive, which no Python library unpacks: unpack it into a folder of its own (bsdtar",
        f"- {empty}: dataset_rsicd.json is not in {empty}",
        f"- {bare}: 5 of the 5 annotated images are missing or empty: 00001.jpg, airport_1.jpg",
        f"- {other}: dataset_rsicd.json: images[0] (a.jpg)",
        card("rsicd").by_hand,
    ):
        assert reason in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_failed_fetch_leaves_what_is_there(tmp_path: Path) -> None:
    out = make_folder(tmp_path / "out", {"images.tar": b"before", "dataset.json": b"before"})
    path = make_zip(tmp_path / "a.zip", layout())
    path.write_bytes(path.read_bytes().replace(IMAGES["airport_1.jpg"][-64:-32], bytes(32)))
    with pytest.raises(UserError, match=r"airport_1\.jpg in .*a\.zip cannot be read"):
        fetch_dataset(known(local(path)), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == dict.fromkeys(
        ["images.tar", "dataset.json"], b"before"
    )


def test_an_unwritable_folder_is_not_the_sources_fault(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"^cannot write .*out/images\.tar"):
        fetch_dataset(known(local(make_folder(tmp_path / "copy", layout()))), tmp_path / "out")


def test_no_room_for_temporary_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", layout())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"No such file or directory.*set TMPDIR"):
        fetch_dataset(known(local(path)), tmp_path / "out")


def test_the_verb_writes_its_record_and_tells_what_it_skipped(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", layout(lists=False))
    spec = json.dumps({"source": "rsicd", "sources": [local(tmp_path / "absent"), local(path)]})
    shown = call("fetch", "--spec", spec, "--folder", tmp_path / "out", "--record", tmp_path / "record.json")
    assert f"skipped {tmp_path}/absent: {tmp_path}/absent does not exist" in shown
    assert "warning: no class lists" in shown and f"RSICD comes from {path}" in shown
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["source"] == str(path) and len(record["skipped"]) == 1
    for other in ({"source": "demo", "title": "d"}, {"source": "ucm", "root": "here"}):
        with pytest.raises(UserError, match="cmer fetch is for published datasets without a `root`"):
            call("fetch", "--spec", json.dumps(other), "--folder", tmp_path)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.output


def test_a_copy_that_is_not_the_published_dataset_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = json.loads(annotations())
    train, test = (next(i for i in swapped["images"] if i["split"] == split) for split in ("train", "test"))
    train["split"], test["split"] = "test", "train"
    wrong = make_folder(tmp_path / "wrong", layout("") | {"dataset_rsicd.json": json.dumps(swapped).encode()})
    right = make_zip(tmp_path / "right.zip", layout())
    entries = [Entry.model_validate(image) for image in json.loads(annotations())["images"]]
    real = fingerprint_of(entries, [LABELS[entry.filename] for entry in entries])
    monkeypatch.setattr(copies, "compare", compare)
    monkeypatch.setattr(copies, "fingerprint", lambda name: real)
    fetched = fetch_dataset(known(local(wrong), local(right)), tmp_path / "out")
    assert fetched.source == str(right) and f"{test['filename']} is in train" in fetched.skipped[0]
    assert_whole(tmp_path / "out", LABELS)
