import hashlib
import json
from pathlib import Path

import pytest
from data_cases import Options, entry
from PIL import Image

from cmer.data.annotations import read_annotations
from cmer.data.frames import CAPTIONS, IMAGES, read_frame
from cmer.data.images import open_images
from cmer.data.prepare import prepare
from cmer.errors import UserError
from cmer.io import expand

GOOD = (entry("pond_1.jpg", captions=("a  pond\n.", "null", "1")), entry("airport_1.tif", "test"))


def test_a_clean_set_is_described_and_read_back(published: Options, tmp_path: Path) -> None:
    options = published(entry("pond_1.jpg", captions=("a  pond\n.", "null", "NA")), entry("airport_1.tif", "test"))
    assert prepare(options, tmp_path / "out") == []
    images, captions = (
        read_frame(tmp_path / "out/images.csv", IMAGES),
        read_frame(tmp_path / "out/captions.csv", CAPTIONS),
    )
    assert images["file"].tolist() == ["pond_1.jpg", "airport_1.tif"]
    assert images["label"].tolist() == ["pond", "airport"]
    assert images[["image_id", "width", "height"]].to_numpy().tolist() == [[0, 8, 6], [1, 9, 6]]
    assert captions["image_id"].tolist() == [0, 0, 0, 1, 1]
    assert captions["caption"].tolist() == ["a pond .", "null", "NA", "a field .", "one field ."]
    tif = Path(options.root) / "images/airport_1.tif"
    assert images["sha256"][1] == hashlib.sha256(tif.read_bytes()).hexdigest()
    loaded = open_images(options, tmp_path).load("airport_1.tif", images["sha256"][1])
    assert loaded.mode == "RGB" and loaded.size == (9, 6) and loaded.getpixel((0, 0)) == (1, 9, 9)


@pytest.fixture
def flawed(published: Options) -> Options:
    def write(**settings: object) -> object:
        options = published(
            entry("pond_1.jpg", captions=("a pond .", " .", "1 .")),
            entry("pond_2.jpg"),
            entry("pond_3.jpg"),
            entry("pond_4.jpg", captions=("...",)),
            entry("pond_5.jpg"),
            entry("port_1.jpg", "test"),
            entry("port_2.jpg", "test"),
            **settings,
        )
        images = Path(options.root) / "images"
        (images / "pond_2.jpg").unlink()
        (images / "pond_3.jpg").write_bytes((images / "pond_5.jpg").read_bytes()[:200])
        Image.new("I;16", (9, 9), 40000).save(images / "port_2.jpg", "TIFF")
        return options

    return write


def test_flaws_stop_with_counts_names_and_the_switch(flawed: Options, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepare(flawed(), tmp_path / "fields")
    report = str(error.value)
    for line in (
        "3 captions contain no letter; `drop` skips them: pond_1.jpg, pond_1.jpg, pond_4.jpg",
        "1 images are missing; `drop` skips them: pond_2.jpg",
        "2 images cannot be decoded; `drop` skips them: pond_3.jpg (Truncated File Read), "
        "port_2.jpg (1 band of uint16; set datasets.fields.raster)",
        "1 images have no caption; `drop` skips them: pond_4.jpg",
        "1 of these are test images; without them, recalls are not comparable with the official split: port_2.jpg",
        "datasets.fields.on_bad: drop",
    ):
        assert line in report
    assert not (tmp_path / "fields/images.csv").exists()


def test_drop_leaves_flaws_out_and_numbers_anew(flawed: Options, tmp_path: Path) -> None:
    found = prepare(flawed(on_bad="drop"), tmp_path)
    assert len(found) == 5
    images, captions = read_frame(tmp_path / "images.csv", IMAGES), read_frame(tmp_path / "captions.csv", CAPTIONS)
    assert images["file"].tolist() == ["pond_1.jpg", "pond_5.jpg", "port_1.jpg"]
    assert images["image_id"].tolist() == [0, 1, 2]
    assert captions["caption_id"].tolist() == list(range(5))
    assert captions["image_id"].tolist() == [0, 1, 1, 2, 2]


def test_a_missing_label_stops_except_under_prefix(published: Options, tmp_path: Path) -> None:
    entries = (entry("00001.jpg"), entry("port_1.jpg", "test"))
    found = prepare(published(*entries), tmp_path)
    assert [str(finding) for finding in found] == ["1 images have no scene label; kept without prompt: 00001.jpg"]
    assert read_frame(tmp_path / "images.csv", IMAGES)["label"].tolist() == ["", "port"]
    column = {"labels": {"rule": "column"}}
    with pytest.raises(UserError, match="2 images have no scene label"):
        prepare(published(*entries, **column), tmp_path)
    prepare(published(*entries, on_bad="drop", **column), tmp_path)
    assert read_frame(tmp_path / "images.csv", IMAGES)["label"].tolist() == ["", ""]


def test_the_same_picture_in_two_splits_is_told(published: Options, tmp_path: Path) -> None:
    options = published(entry("pond_1.jpg"), entry("port_1.jpg", "test"))
    images = Path(options.root) / "images"
    (images / "port_1.jpg").write_bytes((images / "pond_1.jpg").read_bytes())
    (finding,) = prepare(options, tmp_path)
    assert finding.files == ["pond_1.jpg", "port_1.jpg"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((entry("a.jpg"), entry("a.jpg", "test")), r"a\.jpg appears more than once"),
        ((entry("../a.jpg"), entry("b.jpg", "test")), r"\.\./a\.jpg is outside the image folder"),
        ((entry("/etc/a.jpg"), entry("b.jpg", "test")), "is outside the image folder"),
        ((entry("a.jpg"), entry("b.jpg", "restval")), r"images\[1\] \(b\.jpg\).*\n.*split.*'restval'"),
        ((entry("a.jpg"),), "no image whose split is 'test'"),
        ((entry("a.jpg", "test"),), "no image whose split is 'train'"),
        (({"filename": "a.jpg", "split": "train"},), "sentences: Field required"),
        ((7,), r"images\[0\] \(not an object\)"),
    ],
)
def test_annotations_out_of_layout_are_named(tmp_path: Path, entries: object, message: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": entries}))
    with pytest.raises(UserError, match=message):
        read_annotations(path)


def test_a_missing_root_or_variable_is_named(
    published: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_ROOT", "/somewhere")
    monkeypatch.delenv("NO_SUCH_ROOT", raising=False)
    assert expand("${SOME_ROOT}/rsicd") == Path("/somewhere/rsicd")
    with pytest.raises(UserError, match="environment variable NO_SUCH_ROOT is not set"):
        expand("${NO_SUCH_ROOT}/rsicd")
    options = published(entry("a_1.jpg"), entry("a_2.jpg", "test"), images="absent")
    with pytest.raises(UserError, match=r"image folder .*absent does not exist"):
        prepare(options, tmp_path)


def test_loading_notices_what_changed_since(published: Options, tmp_path: Path) -> None:
    options = published(entry("a_1.jpg"), entry("a_2.jpg", "test"))
    store = open_images(options, tmp_path)
    path = Path(options.root) / "images/a_1.jpg"
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    Image.new("RGB", (5, 5)).save(path)
    with pytest.raises(UserError, match=r"a_1\.jpg has changed"):
        store.load("a_1.jpg", known)
    path.write_text("no image")
    with pytest.raises(UserError, match=r"a_1\.jpg cannot be decoded"):
        store.load("a_1.jpg", hashlib.sha256(b"no image").hexdigest())
    path.unlink()
    with pytest.raises(UserError, match=r"a_1\.jpg cannot be read"):
        store.load("a_1.jpg", known)
