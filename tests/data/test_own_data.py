import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raster_cases import picture, sentinel, tiff

from cmer.config.base import ConfigError, validate
from cmer.config.datasets import FolderDataset, Raster, SplitFractions
from cmer.data.frames import CAPTIONS, IMAGES, read_frame
from cmer.data.images import decode, open_images
from cmer.data.prepare import prepare
from cmer.data.prompts import augment
from cmer.data.splits import drawn_splits, validation_ids
from cmer.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def options(root: Path, **settings: Any) -> FolderDataset:
    return validate(FolderDataset, {"source": "folder", "title": "Mine", "root": str(root)} | settings, "mine")


def names(classes: dict[str, int]) -> tuple[list[str], list[str]]:
    files = [f"{label}_{i}.jpg" for label, count in classes.items() for i in range(count)]
    return files, [name.partition("_")[0] for name in files]


# --- splits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("val", [0.0, 0.1, 0.45])
@pytest.mark.parametrize("test", [0.05, 0.1, 0.5])
def test_every_class_is_in_every_split_in_proportion(val: float, test: float) -> None:
    classes = {"pond": 200, "port": 40, "park": 7, "farm": 3, "hill": 2, "pier": 1, "mine": 1}
    files, labels = names(classes)
    splits = drawn_splits(files, labels, range(len(files)), SplitFractions(val=val, test=test))
    counts = {label: Counter(s for s, own in zip(splits, labels, strict=True) if own == label) for label in classes}
    for label, size in classes.items():
        if size >= 3:
            assert set(counts[label]) == {"train", "test"} | ({"val"} if val else set())
            assert abs(counts[label]["test"] - test * size) <= 1 or size < 10
            assert abs(counts[label]["val"] - val * size) <= 1 or size < 10
    assert counts["hill"] == {"train": 1, "test": 1}
    assert {*counts["pier"], *counts["mine"]} == {"train", "test"}


def test_the_draw_depends_on_names_and_seed_alone() -> None:
    files, labels = names({"pond": 30, "port": 20})
    known = dict(zip(files, drawn_splits(files, labels, range(len(files)), SplitFractions()), strict=True))
    pairs = list(zip(files, labels, strict=True))
    random.Random(0).shuffle(pairs)
    shuffled = [list(column) for column in zip(*pairs, strict=True)]
    assert dict(zip(shuffled[0], drawn_splits(*shuffled, range(50), SplitFractions()), strict=True)) == known
    other = drawn_splits(files, labels, range(len(files)), SplitFractions(seed=1))
    assert other != list(known.values()) and Counter(other) == Counter(known.values())
    grown = drawn_splits([*files, "port_20.jpg"], [*labels, "port"], range(51), SplitFractions())
    assert sum(a != b for a, b in zip(grown, known.values(), strict=False)) <= 2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_without_labels_the_images_are_one_class(count: int) -> None:
    splits = drawn_splits([f"{i}.jpg" for i in range(count)], [""] * count, range(count), SplitFractions())
    assert Counter(splits) == {"train": max(count - 2, 1), "test": 1} | ({"val": 1} if count > 2 else {})


def test_fractions_that_leave_nothing_to_train_on_are_an_error(tmp_path: Path) -> None:
    for wrong in ({"val": 0.5, "test": 0.5}, {"test": 0}, {"test": 1.0}, {"val": -0.1}):
        with pytest.raises(ConfigError, match="split"):
            options(tmp_path, split=wrong)


# --- layouts, as prepared ---------------------------------------------------------------------------


def test_captions_in_a_csv_are_prepared_with_drawn_splits(tmp_path: Path) -> None:
    rows = ["file,caption,label"]
    for i in range(12):
        picture(tmp_path / f"images/{i}.jpg", (20 * i, 0, 0), seed=i)
        rows += [f'{i}.jpg,"a pond, seen from above",pond', f"{i}.jpg,number {i},pond"]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    mine = options(tmp_path, annotations="captions.csv", split={"val": 0.25, "test": 0.25})
    (drawn,) = prepare(mine, tmp_path / "out")
    assert str(drawn).startswith("12 images name no split; split at random: 6 train, 3 val, 3 test: 0.jpg, 1.jpg")
    images, captions = (
        read_frame(tmp_path / "out/images.csv", IMAGES),
        read_frame(tmp_path / "out/captions.csv", CAPTIONS),
    )
    assert Counter(images["split"]) == {"train": 6, "val": 3, "test": 3} and set(images["label"]) == {"pond"}
    assert captions["image_id"].tolist() == [i // 2 for i in range(24)]
    assert captions["caption"].tolist()[2:4] == ["a pond, seen from above", "number 1"]
    assert validation_ids(images, images["image_id"], 5) == images.loc[images["split"] == "val", "image_id"].tolist()
    before = (tmp_path / "out/images.csv").read_bytes()
    prepare(mine, tmp_path / "out")
    assert (tmp_path / "out/images.csv").read_bytes() == before


def test_splits_that_rows_name_are_kept(tmp_path: Path) -> None:
    rows = [("a.jpg", "train"), ("b.jpg", "val"), ("c.jpg", "test"), ("d.jpg", "train")]
    for name, _ in rows:
        picture(tmp_path / "images" / name)
    text = "".join(
        f'{{"file": "{name}", "captions": ["{name} shows a field"], "split": "{split}"}}\n' for name, split in rows
    )
    (tmp_path / "mine.jsonl").write_text(text)
    found = prepare(options(tmp_path, annotations="mine.jsonl"), tmp_path / "out")
    assert [finding.what for finding in found] == [
        "images have no scene label",
        "images are identical to an image of another split",
    ]
    assert read_frame(tmp_path / "out/images.csv", IMAGES)["split"].tolist() == [split for _, split in rows]


def test_class_folders_are_captioned_by_their_class(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"tiles/StorageTanks/deep/{i}.png", (20 * i, 0, 0), seed=i)
        picture(tmp_path / f"tiles/farm/{i}.jpg", (20 * i, 99, 0), seed=5 + i)
    (tmp_path / "tiles/farm/Thumbs.db").touch()
    (tmp_path / "tiles/readme.txt").touch()
    mine = options(tmp_path, annotations=None, images="tiles", caption="{label} from above", merge={"farm": "farmland"})
    drawn, ignored = prepare(mine, tmp_path / "out")
    assert drawn.what == "images name no split"
    assert str(ignored) == "2 files do not have the name of an image; skipped: farm/Thumbs.db, readme.txt"
    images, captions = (
        read_frame(tmp_path / "out/images.csv", IMAGES),
        read_frame(tmp_path / "out/captions.csv", CAPTIONS),
    )
    labels = dict(zip(images["file"], images["label"], strict=True))
    assert labels["StorageTanks/deep/0.png"] == "storage tanks" and labels["farm/0.jpg"] == "farmland"
    expected = [f"{label} from above" for label in images["label"]]
    assert captions["caption"].tolist() == expected
    for label in ("storage tanks", "farmland"):
        assert set(images.loc[images["label"] == label, "split"]) == {"train", "val", "test"}


def test_an_image_beside_the_class_folders_has_no_class(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"images/farm/{i}.jpg", (i, 9, 0))
    picture(tmp_path / "images/stray.jpg")
    with pytest.raises(UserError) as error:
        prepare(options(tmp_path, annotations=None), tmp_path / "mine")
    assert "1 images have no caption; `drop` skips them: stray.jpg" in str(error.value)
    assert "1 images have no scene label; kept without prompt: stray.jpg" in str(error.value)
    prepare(options(tmp_path, annotations=None, on_bad="drop"), tmp_path / "mine")
    assert "stray.jpg" not in set(read_frame(tmp_path / "mine/images.csv", IMAGES)["file"])


@pytest.mark.parametrize("what", ["no folder", "no image", "no class"])
def test_class_folders_without_images_are_named(tmp_path: Path, what: str) -> None:
    if what != "no folder":
        (tmp_path / "images/farm").mkdir(parents=True)
        (tmp_path / "images/farm/notes.txt").touch()
    if what == "no class":
        picture(tmp_path / "images/a.jpg")
        picture(tmp_path / "images/b.jpg")
    message = {
        "no folder": r"images cannot be listed \(No such file",
        "no image": "images contains no image",
        "no class": "no caption",
    }
    with pytest.raises(UserError, match=message[what]):
        prepare(options(tmp_path, annotations=None), tmp_path / "out")


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    picture(tmp_path / "images/farm/a.jpg")
    with pytest.raises(UserError, match="no usable image is left in split 'test'"):
        prepare(options(tmp_path, annotations=None), tmp_path / "out")


# --- rasters ----------------------------------------------------------------------------------------


def test_rasters_and_pictures_of_one_folder_are_prepared_and_shown_alike(tmp_path: Path) -> None:
    folder = tmp_path / "images/field"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.tif").write_bytes(tiff(sentinel(i), compress="deflate"))
        picture(folder / f"{i}.png", (i, i, i))
    with pytest.raises(UserError) as error:
        prepare(options(tmp_path, annotations=None), tmp_path / "mine")
    named = ", ".join(f"field/{i}.tif (4 bands of uint16; set datasets.mine.raster)" for i in range(3))
    assert f"3 images cannot be decoded; `drop` skips them: {named}" in str(error.value)

    how = {"bands": [3, 2, 1], "stretch": {"kind": "percentile", "low": 2, "high": 98}}
    mine = options(tmp_path, annotations=None, raster=how)
    prepare(mine, tmp_path / "mine")
    images = read_frame(tmp_path / "mine/images.csv", IMAGES).set_index("file")
    assert images.loc["field/1.tif", ["width", "height"]].tolist() == [24, 24]
    store = open_images(mine, tmp_path / "mine")
    for name, sha in images["sha256"].items():
        expected = decode((tmp_path / "images" / str(name)).read_bytes(), Raster(bands=(3, 2, 1)))
        assert (np.asarray(store.load(str(name), sha)) == np.asarray(expected)).all()


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e6, 2e6), (-2, -1), (0, 262_140), (-1e12, 1e12), (2000.2, 2000.3)],
    ids=["black", "white", "nearly black", "nearly gray", "black and white"],
)
def test_a_stretch_that_renders_most_images_in_one_colour_stops(tmp_path: Path, low: float, high: float) -> None:
    for i in range(4):
        (tmp_path / "images/field").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"images/field/{i}.tif").write_bytes(tiff(sentinel(i)))
    wrong = {"bands": [3, 2, 1], "stretch": {"kind": "range", "low": low, "high": high}}
    with pytest.raises(UserError) as error:
        prepare(options(tmp_path, annotations=None, raster=wrong, on_bad="drop"), tmp_path / "mine")
    assert "4 of 4 images of Mine are of a single colour" in str(error.value)
    assert "correct datasets.mine.raster (bands, low, high): field/0.tif, field/1.tif" in str(error.value)
    assert not (tmp_path / "mine/images.csv").exists()


def test_images_of_a_single_colour_are_counted_and_stop_only_if_they_are_most(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"images/farm/{i}.png", (40 * i, 9, 9))
        Image.new("RGB", (8, 8), (9, 9, 40 * i)).save(tmp_path / f"images/farm/plain{i}.png")
    mine = options(tmp_path, annotations=None)
    found = [finding for finding in prepare(mine, tmp_path / "mine") if "single colour" in finding.what]
    assert [(finding.files, finding.stops) for finding in found] == [([f"farm/plain{i}.png" for i in range(3)], False)]
    Image.new("RGB", (8, 8)).save(tmp_path / "images/farm/0.png")
    with pytest.raises(UserError, match=r"4 of 6 images of Mine are of a single colour, .*; give images that show"):
        prepare(mine, tmp_path / "mine")


def test_a_class_to_merge_that_does_not_exist_is_named_before_any_image_is_opened(tmp_path: Path) -> None:
    for name in ("farm/0", "farm/1", "seaport/0", "sea_port/0"):
        (tmp_path / f"images/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"images/{name}.png").write_text("no image")
    with pytest.raises(
        UserError, match=r"datasets\.mine\.merge: no image has the class farms; classes are farm, sea port"
    ):
        prepare(options(tmp_path, annotations=None, merge={"farms": "farm"}), tmp_path / "mine")
    with pytest.raises(UserError, match="two classes are called 'sea port' and 'seaport'"):
        prepare(options(tmp_path, annotations=None), tmp_path / "mine")


@pytest.mark.parametrize(
    ("raster", "message"),
    [
        ({"bands": [3, 2]}, "raster.bands"),
        ({"bands": [3, 2, 0]}, "greater than or equal to 1"),
        ({}, "bands: Field required"),
        ({"bands": [1, 1, 1], "stretch": {"kind": "range", "low": 5, "high": 5}}, r"low \(5\.0\) must be below high"),
        ({"bands": [1, 1, 1], "stretch": {"kind": "range", "low": 5}}, "high: Field required"),
        ({"bands": [1, 1, 1], "stretch": {"kind": "percentile", "high": 101}}, "less than or equal to 100"),
        ({"bands": [1, 1, 1], "stretch": {"kind": "log", "low": 1, "high": 2}}, "'percentile', 'range'"),
    ],
)
def test_a_wrong_raster_setting_is_named(tmp_path: Path, raster: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, raster=raster)


def test_annotations_are_of_a_known_kind_and_captions_name_their_class(tmp_path: Path) -> None:
    for wrong in ({"annotations": "captions.xlsx"}, {"annotations": "captions"}, {"caption": "an overhead image"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            options(tmp_path, **wrong)


# --- and further ------------------------------------------------------------------------------------


def test_a_class_of_one_image_and_captions_of_one_class_go_through_augmentation(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"images/farm/{i}.jpg", (i, 9, 0))
    picture(tmp_path / "images/pier/0.jpg")
    mine = options(tmp_path, annotations=None)
    prepare(mine, tmp_path / "out")
    prompted, queries = augment(
        mine.template,
        read_frame(tmp_path / "out/images.csv", IMAGES),
        read_frame(tmp_path / "out/captions.csv", CAPTIONS),
    )
    assert len(prompted) == 5 and set(queries["oracle"]) <= {
        "farm. an overhead image of farm",
        "pier. an overhead image of pier",
    }
