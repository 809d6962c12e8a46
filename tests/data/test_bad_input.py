"""Whatever is wrong with a user's folder, `cmer prepare` says so in a sentence, and what was prepared before stays."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import entry
from PIL import Image
from raster_cases import encoded, palette, picture, tiff

from cmer.config.datasets import FolderDataset
from cmer.data import frames
from cmer.data.annotations import normalise_whitespace
from cmer.data.frames import IMAGES, read_frame
from cmer.data.prepare import Finding, prepare
from cmer.data.prompts import augment
from cmer.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # pytest undoes the filters of the modules that are tested
Put = Callable[[Path], object]
DROP = "`drop` skips them"


class Mine:
    """A user's folder of six images that has been prepared once, and what was written then."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root / "mine", root / "results/mine"
        self.rows = [entry(f"pond_{i}.png", "test" if i > 3 else "train", (f"pond {i}",)) for i in range(6)]
        for i, row in enumerate(self.rows):
            picture(self.root / "images" / row["filename"], (40 * i, 9, 9))
        self.prepare()
        self.before = self.written()

    def prepare(self, **settings: Any) -> list[Finding]:
        (self.root / "dataset.json").write_text(json.dumps({"images": self.rows}))
        settings = {"annotations": "dataset.json"} | settings
        return prepare(FolderDataset(source="folder", title="Mine", root=str(self.root), **settings), self.out)

    def written(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()}

    def refuse(self, *sentences: str, **settings: Any) -> None:
        """Preparing stops with these sentences, and leaves all as it was."""
        with pytest.raises(UserError) as error:
            self.prepare(**settings)
        for sentence in sentences:
            assert sentence in str(error.value)
        assert self.written() == self.before

    @property
    def files(self) -> list[str]:
        return list(read_frame(self.out / "images.csv", IMAGES)["file"])

    @property
    def captions(self) -> list[str]:
        return list(read_frame(self.out / "captions.csv", frames.CAPTIONS)["caption"])


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    return Mine(tmp_path)


# --- images -----------------------------------------------------------------------------------------


def bomb(path: Path) -> None:
    header = encoded(Image.new("RGB", (9, 9)), "BMP")
    path.write_bytes(header[:18] + (50_000).to_bytes(4, "little") * 2 + header[26:])


def linked(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.png"))


def piped(path: Path) -> None:
    os.mkfifo(path)


WHOLE = encoded(Image.effect_noise((64, 64), 50).convert("RGB"))


@pytest.mark.parametrize(
    ("put", "sentence"),
    [
        (None, f"1 images are missing; {DROP}: pond_0.png"),
        (linked, f"1 images are missing; {DROP}: pond_0.png"),
        (Path.mkdir, "pond_0.png (it is not a file)"),
        (piped, "pond_0.png (it is not a file)"),
        (Path.touch, f"1 images cannot be decoded; {DROP}: pond_0.png (the file is empty)"),
        (lambda path: path.write_text("a text"), "pond_0.png (not an image in a known format)"),
        (lambda path: path.write_bytes(WHOLE[:900]), "pond_0.png (image file is truncated"),
        (lambda path: path.write_bytes(WHOLE[:900] + bytes(3000)), "pond_0.png (broken"),
        (bomb, "pond_0.png (it has more than 178,956,970 pixels; cut it into tiles)"),
        (lambda path: path.open("wb").truncate(2**32), "pond_0.png (it has 4.0 GiB; cut it into tiles)"),
        (lambda path: Image.new("I;16", (9, 9)).save(path), "pond_0.png (1 band of uint16; set datasets.mine.raster)"),
        (lambda path: path.write_bytes(tiff(np.ones((4, 9, 9), np.float32))), "pond_0.png (4 bands of float32; set"),
    ],
    ids=[
        *("missing", "broken link", "folder", "pipe", "zero bytes", "text", "cut", "corrupt"),
        *("bomb", "huge file", "16 bits", "four bands"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_or_dropped(mine: Mine, put: Put | None, sentence: str) -> None:
    path = mine.root / "images/pond_0.png"
    path.unlink()
    if put:
        put(path)
    mine.refuse(sentence, "datasets.mine.on_bad: drop")
    assert any(sentence in str(finding) for finding in mine.prepare(on_bad="drop"))
    assert mine.files == [f"pond_{i}.png" for i in range(1, 6)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_image_that_may_not_be_read_is_named(mine: Mine) -> None:
    (mine.root / "images/pond_0.png").chmod(0)
    mine.refuse("pond_0.png (Permission denied)")


def test_unusual_images_are_taken(mine: Mine) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8))
    frames = [noise.rotate(90 * i).convert("RGB") for i in range(3)]
    indices = palette((1, 2, 3))
    indices.putpixel((0, 0), 0)
    exif = Image.Exif()
    exif[0x0112] = 8
    for name, data in {
        "pond_0.png": encoded(noise.convert("CMYK"), "JPEG"),
        "pond_1.png": encoded(indices, transparency=b"\x80\x00"),
        "pond_2.png": encoded(noise.convert("RGBA")),
        "pond_3.png": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "pond_4.png": encoded(noise.convert("1")),
        "pond_5.png": encoded(noise.convert("RGB").crop((0, 0, 8, 4)), "JPEG", exif=exif),
    }.items():
        (mine.root / "images" / name).write_bytes(data)
    assert mine.prepare() == []
    assert read_frame(mine.out / "images.csv", IMAGES)[["width", "height"]].to_numpy().tolist()[5] == [4, 8]


# --- captions ---------------------------------------------------------------------------------------

CAPTIONS = [
    "a pond " * 15_000,
    "x" * 100_000,
    "码头里有几条船",
    "ท่าเรือที่มีเรือหลายลำ",
    "مرفأ مع قوارب",
    "a \u202eharbour\u202c with ships",
    "a harbour 🚢⚓ \U0001f469\u200d\U0001f33e",
    "tab\tnew\nline\r\nbell\a null\0 escape\x1b[31m next\x85 half \ud83d",
    '"quoted", with ""doubles"", and commas;',
    "'; DROP TABLE images; -- <b>null</b> \\n {label} %s",
    "=HYPERLINK(A1)",
    "NA",
]


@pytest.mark.parametrize("caption", CAPTIONS, ids=range(len(CAPTIONS)))
def test_unusual_captions_come_back_as_they_are_on_one_line(mine: Mine, caption: str) -> None:
    mine.rows[0]["sentences"] = [{"raw": caption}]
    mine.prepare()
    assert mine.captions[0] == normalise_whitespace(caption) and mine.captions[1:] == [f"pond {i}" for i in range(1, 6)]
    assert not set(mine.captions[0]) & set("\t\n\r\a\0\x1b\x85\ud83d")
    prompted, _ = augment(
        "{label}. {caption}",
        read_frame(mine.out / "images.csv", IMAGES),
        read_frame(mine.out / "captions.csv", frames.CAPTIONS),
    )
    assert prompted["prompt"][0] == "pond. " + mine.captions[0]


@pytest.mark.parametrize("caption", ["", " \n\t", "🌊🌊", "12 + 3", "...", "\0", "\ud83d", "\u200b"])
def test_a_caption_without_a_letter_is_blank(mine: Mine, caption: str) -> None:
    mine.rows[0]["sentences"] += [{"raw": caption}]
    mine.refuse(f"1 captions contain no letter; {DROP}: pond_0.png")
    mine.prepare(on_bad="drop")
    assert mine.captions[0] == "pond 0" and len(mine.captions) == 6


def test_a_split_without_captions_or_images_is_named(mine: Mine) -> None:
    for row in mine.rows[4:]:
        row["sentences"] = []
    mine.refuse(f"2 images have no caption; {DROP}: pond_4.png, pond_5.png")
    mine.refuse("no usable image is left in split 'test'", on_bad="drop")
    for row in mine.rows:
        row["split"] = "train"
    mine.refuse("has no image whose split is 'test'")


# --- names ------------------------------------------------------------------------------------------


def test_unusual_names_are_taken(mine: Mine) -> None:
    names = ["a, b.png", 'a "b".png', "POND_1.png", "é 码头 🌊.png", "-r.png", "sub/#1.png"]
    for i, (row, name) in enumerate(zip(mine.rows, names, strict=True)):
        row["filename"] = name
        picture(mine.root / "images" / name, (40 * i, 9, 9))
    mine.prepare()
    assert mine.files == names


def test_names_differing_in_case_only_are_two_images(mine: Mine) -> None:
    mine.rows[0]["filename"] = "POND_1.png"
    picture(mine.root / "images/POND_1.png", (99, 99, 99))
    mine.prepare()
    assert mine.files[:2] == ["POND_1.png", "pond_1.png"]
    assert read_frame(mine.out / "images.csv", IMAGES)["sha256"].nunique() == 6


def test_a_name_that_no_file_can_have_is_missing_or_an_error(mine: Mine) -> None:
    mine.rows[0]["filename"] = "x" * 5000 + ".png"
    mine.refuse("(File name too long)")
    for name in ("/etc/hostname", "../../secret.png", "a\\b.png", "", "a\nb.png"):
        mine.rows[0]["filename"] = name
        mine.refuse("use names inside it" if name[:1] in "/." and name else "a file name must not be empty")


def test_names_on_disk_that_are_not_utf_8_are_shown(mine: Mine) -> None:
    picture(mine.root / "tiles/farm/a.png")
    foreign = mine.root / "tiles/farm" / os.fsdecode(b"caf\xe9.png")
    foreign.write_bytes(WHOLE)
    mine.refuse(r"'farm/caf\udce9.png': names that are not UTF-8; rename these files", annotations=None, images="tiles")
    foreign.rename(mine.root / "tiles/farm/a\n.png")
    mine.refuse(r"'farm/a\n.png'", annotations=None, images="tiles")


def test_links_that_go_round_are_told(mine: Mine) -> None:
    picture(mine.root / "tiles/farm/a.png")
    (mine.root / "tiles/farm/round").symlink_to(mine.root / "tiles")
    mine.refuse("which has already been read; remove the link", annotations=None, images="tiles")


@pytest.mark.parametrize("name", ["dataset.json", "rows.csv", "rows.jsonl"])
def test_annotations_that_never_end_are_named(mine: Mine, name: str) -> None:
    (mine.root / "dataset.json").unlink()
    os.mkfifo(mine.root / name)
    options = FolderDataset(source="folder", title="Mine", root=str(mine.root), annotations=name)
    with pytest.raises(UserError, match=f"{name} is a pipe, not a regular file"):
        prepare(options, mine.out)
    assert mine.written() == mine.before


def test_an_image_that_claims_to_be_empty_is_read_as_such(mine: Mine) -> None:
    mine.rows[0]["filename"] = "endless.png"
    (mine.root / "images/endless.png").symlink_to("/proc/self/environ")
    mine.refuse("endless.png (the file is empty)")


# --- where results go -------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["/proc/mine", "/dev/null/mine", "a file"])
def test_a_folder_that_cannot_be_written_is_named(mine: Mine, out: str) -> None:
    (mine.root / "a file").touch()
    options = FolderDataset(source="folder", title="Mine", root=str(mine.root))
    with pytest.raises(UserError, match=rf"cannot write .*{out}/.*; choose another folder"):
        prepare(options, mine.root / out)


def test_annotations_are_not_overwritten(mine: Mine) -> None:
    rows = "\n".join(f"{row['filename']},{row['split']},{row['sentences'][0]['raw']}" for row in mine.rows)
    mine.refuse("captions.csv would be overwritten; move the dataset", annotations="../results/mine/captions.csv")
    (mine.root / "captions.csv").write_text(f"file,split,caption\n{rows}\n")
    mine.prepare(annotations="captions.csv")


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from cmer.cli.main import main
main()
"""


@pytest.mark.parametrize("limit", [50, 400])  # before captions.csv is whole, and before images.csv is
def test_a_full_disk_leaves_what_was_there(mine: Mine, limit: int) -> None:
    spec = FolderDataset(source="folder", title="Mine", root=str(mine.root)).model_dump_json()
    mine.rows[0]["sentences"] = [{"raw": "another caption"}]
    (mine.root / "dataset.json").write_text(json.dumps({"images": mine.rows}))
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, str(limit), "prepare", "--spec", spec, "--folder", str(mine.out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "File too large; free disk space or choose another folder" in done.stderr
    assert len(mine.before["captions.csv"]) < 400 < len(mine.before["images.csv"])
    assert mine.written() == mine.before  # and no half-written file beside them
