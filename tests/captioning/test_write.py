"""`cmer caption`: what it writes, what an interruption leaves, and what stops it."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cmer.captioning.base import Captioner, RichText
from cmer.captioning.partial import Partial
from cmer.captioning.rich import RichTexts, encode, write_rich
from cmer.cli.main import app
from cmer.config.captioners import CaptionerOptions
from cmer.errors import UserError
from cmer.io import sha256
from cmer.registry import CAPTIONER_OPTIONS, CAPTIONERS


@CAPTIONER_OPTIONS.register("toy_means")
class ToyOptions(CaptionerOptions):
    prompt: str = "mean"


@CAPTIONERS.register("toy_means")
class Toy(Captioner):
    """Writes the mean of an image, its place in the batch and the batch's size, which resuming must not change."""

    batches: ClassVar[list[Sequence[str]]] = []
    stop_after: ClassVar[int | None] = None

    def origin(self) -> dict[str, Any]:
        return {"made": "here"}

    def caption(self, files: Sequence[str], images: Sequence[Image.Image]) -> list[RichText]:
        if Toy.stop_after is not None and len(Toy.batches) == Toy.stop_after:
            raise KeyboardInterrupt
        Toy.batches.append(files)
        means = [np.asarray(image).mean() for image in images]
        return [{"sentence": [f"{m:.3f}  är {n}\nof {len(files)}"], "keywords": ["", " "]} for n, m in enumerate(means)]


@pytest.fixture(autouse=True)
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Toy, "batches", [])
    monkeypatch.setattr(Toy, "stop_after", None)


def spec(prepared: Any, **captioner: Any) -> str:
    given = {"kind": "toy_means", "batch_size": 5} | captioner
    return json.dumps({"dataset": prepared.options.model_dump(mode="json"), "captioner": given})


def caption(prepared: Any, out: str = "rich/toy.jsonl", **captioner: Any) -> Path:
    command = ["caption", "--spec", spec(prepared, **captioner), "--folder", str(prepared.folder), "--out", out]
    result = CliRunner().invoke(app, [*command, "--record", "record.json"], catch_exceptions=False)
    if result.exception:
        raise result.exception
    return Path(out)


def test_every_image_has_its_line_in_the_order_of_the_dataset(prepared) -> None:
    path = caption(prepared)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["file"] for row in rows] == prepared.pairs.files
    assert [row["sha256"] for row in rows] == prepared.pairs.sha256
    image = np.asarray(Image.open(Path(prepared.options.root) / "images" / rows[6]["file"]))
    assert rows[6]["captions"] == {"sentence": [f"{image.mean():.3f} är 1 of 5"]}, "one line, and no blank text"
    rich = RichTexts.read(path, prepared.pairs.files, prepared.pairs.sha256)
    assert rich.images == [row["captions"] for row in rows] and rich.digest == sha256(path)
    sealed = json.loads(path.with_suffix(".json").read_text())
    assert sealed["captioner"]["prompt"] == "mean" and sealed["origin"] == {"made": "here"}
    assert sealed["images"] == 36 and sealed["versions"]["python"]
    run = json.loads(Path("record.json").read_text())
    assert run["started"] and run["outputs"]["rich/toy.jsonl"] == sha256(path)
    assert run["captioner"]["kind"] == "toy_means"
    assert not list(Path("work/captions").glob("*.jsonl"))


@pytest.mark.parametrize("cut", ["nothing", "half a line", "a batch and a byte", "its line end", "everything"])
def test_a_killed_captioning_resumes_and_ends_with_the_same_bytes(prepared, monkeypatch, cut: str) -> None:
    whole = [caption(prepared, "whole.jsonl").read_bytes(), Path("whole.json").read_bytes()]
    Toy.batches.clear()
    monkeypatch.setattr(Toy, "stop_after", 4)
    with pytest.raises(BaseException):  # noqa: B017
        caption(prepared)
    (partial,) = Path("work/captions").glob("*.jsonl")
    content = partial.read_bytes()
    assert not Path("rich/toy.jsonl").exists() and content.count(b"\n") == 20
    lines = content.splitlines(keepends=True)
    left, kept = {
        "nothing": (content, 20),
        "half a line": (content[: -len(lines[-1]) // 2], 15),
        "a batch and a byte": (b"".join(lines[:15]) + b"\xff", 15),
        "its line end": (content[:-1], 15),
        "everything": (b"", 0),
    }[cut]
    partial.write_bytes(left)
    monkeypatch.setattr(Toy, "stop_after", None)
    Toy.batches.clear()
    path = caption(prepared)
    assert [path.read_bytes(), path.with_suffix(".json").read_bytes()] == whole
    assert [file for batch in Toy.batches for file in batch] == prepared.pairs.files[kept:]


def test_a_changed_line_of_an_unfinished_captioning_is_not_believed(prepared, monkeypatch) -> None:
    whole = caption(prepared, "whole.jsonl").read_bytes()
    Toy.batches.clear()
    monkeypatch.setattr(Toy, "stop_after", 4)
    with pytest.raises(BaseException):  # noqa: B017
        caption(prepared)
    (partial,) = Path("work/captions").glob("*.jsonl")
    lines = partial.read_bytes().splitlines(keepends=True)
    lines[7] = lines[7].replace("är".encode(), b"or")
    partial.write_bytes(b"".join(lines))
    monkeypatch.setattr(Toy, "stop_after", None)
    Toy.batches.clear()
    assert caption(prepared).read_bytes() == whole
    assert Toy.batches[0] == tuple(prepared.pairs.files[5:10])


def test_another_prompt_does_not_resume_what_is_unfinished(prepared, monkeypatch) -> None:
    monkeypatch.setattr(Toy, "stop_after", 1)
    with pytest.raises(BaseException):  # noqa: B017
        caption(prepared)
    monkeypatch.setattr(Toy, "stop_after", None)
    Toy.batches.clear()
    caption(prepared, prompt="median")
    assert Toy.batches[0] == tuple(prepared.pairs.files[:5])


@pytest.mark.parametrize("damage", ["missing", "broken", "changed"])
def test_an_image_that_cannot_be_read_is_named(prepared, tmp_path, damage: str) -> None:
    shutil.copytree(prepared.options.root, tmp_path / "copy")
    own = replace(prepared, options=prepared.options.model_copy(update={"root": str(tmp_path / "copy")}))
    file = prepared.pairs.files[17]
    path = tmp_path / "copy/images" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60] if damage == "broken" else b"another")
    with pytest.raises(UserError, match=f"image {file}"):
        caption(own)
    assert not Path("rich/toy.jsonl").exists()


def test_an_image_without_any_text_is_named(prepared, monkeypatch) -> None:
    monkeypatch.setattr(Toy, "caption", lambda self, files, images: [{"sentence": [" \n"]}] * len(files))
    with pytest.raises(UserError, match=f"wrote nothing about image {prepared.pairs.files[0]}; change its prompts"):
        caption(prepared)


def test_precomputed_texts_open_no_image(prepared, tmp_path, monkeypatch) -> None:
    rows = [
        {"file": file, "captions": {"sentence": f"about {file}"}} for file in [*prepared.pairs.files[::-1], "x.png"]
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("cmer.data.images.FolderImages.read", lambda *_: pytest.fail("opened an image"))
    monkeypatch.setenv("OWN", str(tmp_path))
    path = caption(prepared, kind="jsonl", path="$OWN/own.jsonl")
    assert [json.loads(line)["captions"] for line in path.read_text().splitlines()] == [
        {"sentence": [f"about {file}"]} for file in prepared.pairs.files
    ]
    assert json.loads(Path("record.json").read_text())["unknown_images"] == 1
    assert json.loads(path.with_suffix(".json").read_text())["origin"] == {"sha256": sha256(tmp_path / "own.jsonl")}
    again = caption(prepared, "again.jsonl", kind="jsonl", path=str(path.absolute()))
    assert again.read_bytes() == path.read_bytes()


def test_texts_that_were_edited_or_belong_to_other_images_are_refused(prepared) -> None:
    path, pairs = caption(prepared), prepared.pairs
    with pytest.raises(UserError, match=r"toy.jsonl describes other images than images.csv; run `cmer caption` again"):
        RichTexts.read(path, pairs.files[::-1], pairs.sha256)
    with pytest.raises(UserError, match=r"toy.jsonl describes other images"):
        RichTexts.read(path, pairs.files, pairs.sha256[::-1])
    path.write_text(path.read_text().replace("är", "is"))
    with pytest.raises(UserError, match=r"toy\.jsonl is damaged or was edited"):
        RichTexts.read(path, pairs.files, pairs.sha256)
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"toy.json does not exist; `cmer caption` writes it"):
        RichTexts.read(path, pairs.files, pairs.sha256)


def test_line_ends_of_other_alphabets_are_part_of_a_name(tmp_path) -> None:
    files, hashes = ["a\u2028b.png", "c\x85d.png"], ["0" * 64, "1" * 64]
    write_rich(
        tmp_path / "a.jsonl", [encode(*image, {"sentence": ["a"]}) for image in zip(files, hashes, strict=True)], {}
    )
    assert RichTexts.read(tmp_path / "a.jsonl", files, hashes).images == [{"sentence": ["a"]}] * 2


def test_unfinished_captions_that_are_no_file_are_named(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match=f"cannot write .*{name}: it is a {name}; choose"):
            Partial(tmp_path / name, [("a", "b")], 1)
