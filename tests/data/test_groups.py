"""Splits that keep near-duplicates and images with the same captions together, and the report of what repeats."""

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table
from data_cases import Options, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raster_cases import picture
from typer.testing import CliRunner

from cmer.cli.data import app
from cmer.config.datasets import FolderDataset, SplitFractions
from cmer.data.frames import IMAGES, VALIDATION, read_frame
from cmer.data.groups import image_groups, kept_together
from cmer.data.prepare import prepare
from cmer.data.splits import drawn_splits, validation_ids
from cmer.errors import UserError
from cmer.io import read_json

# --- which images are linked ------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=24))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_connected_components_of_naive_links(drawn: list[tuple[int, int, int, int]]) -> None:
    rng = np.random.default_rng(0)
    hashes = ["0" * 64, "", *(rng.bytes(32).hex() for _ in range(11))]
    rows = [(f"{sha:064x}" if sha else "", hashes[own], text, other) for sha, own, text, other in drawn]
    images = pd.DataFrame({"sha256": [row[0] for row in rows], "hash": [row[1] for row in rows], "label": ""})
    images.index += 5
    texts = [{f"text {text}", f"text {other}"} - {"text 0"} for *_, text, other in rows]
    pairs = [(image, text) for image, own in zip(images.index, texts, strict=True) for text in sorted(own)]
    captions = pd.DataFrame(pairs, columns=["image", "caption"]).set_index("image")["caption"]
    one_set = len({frozenset(own) for own in texts if own}) < 2

    def linked(a: int, b: int) -> bool:
        alike = rows[a][1] == rows[b][1] and int(rows[a][1] or "0", 16) > 0
        return alike or (rows[a][0] == rows[b][0] != "") or (texts[a] == texts[b] != set() and not one_set)

    groups = [{image} for image in range(len(rows))]
    for a, b in combinations(range(len(rows)), 2):
        if linked(a, b) and groups[a] is not groups[b]:
            groups[a] |= groups[b]
            for image in groups[b]:
                groups[image] = groups[a]
    found = image_groups(images, captions)
    assert found.tolist() == [min(group) for group in groups] and found.index.equals(images.index)


def grouped(captions: list[list[str]], labels: list[str]) -> list[int]:
    """Groups of images that differ in everything but their captions."""
    images = pd.DataFrame({"sha256": [f"{i:064x}" for i in range(len(labels))], "hash": "0" * 64, "label": labels})
    pairs = [(image, text) for image, texts in enumerate(captions) for text in texts]
    return image_groups(images, pd.DataFrame(pairs, columns=["image", "text"]).set_index("image")["text"]).tolist()


def test_images_are_linked_by_all_their_captions_and_not_by_some() -> None:
    captions = [["a pond", "a lake"], ["a pond", "a pond"], ["a lake", "a pond", "a pond"], ["a pond"], ["A pond"]]
    assert grouped(captions, ["pond"] * 5) == [0, 1, 0, 1, 4]


def test_captions_that_only_name_the_class_link_nothing() -> None:
    tiles = [["a tile of farm"]] * 3 + [["a tile of pier"]] * 3
    labels = ["farm"] * 3 + ["pier"] * 3
    assert grouped(tiles, labels) == list(range(6))
    assert grouped([*tiles, ["a long pier"]], [*labels, "pier"]) == [0, 0, 0, 3, 3, 3, 6]


# --- how they are split -----------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 3), min_size=25, max_size=60)
"""Sizes of the groups of a class."""


def archive(classes: list[list[int]]) -> tuple[list[str], list[str], list[int]]:
    """File, label and group of each image, given the sizes of the groups of each class."""
    rows = [(label, number, size) for label, sizes in enumerate(classes) for number, size in enumerate(sizes)]
    images = [(f"{a}_{b}_{i}.jpg", f"class {a}", 1000 * a + b) for a, b, size in rows for i in range(size)]
    files, labels, groups = (list(column) for column in zip(*images, strict=True))
    return files, labels, groups


@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_no_group_is_split_and_classes_keep_their_proportions(classes: list[list[int]], seed: int) -> None:
    files, labels, groups = archive(classes)
    splits = drawn_splits(files, labels, groups, SplitFractions(seed=seed))
    sides = pd.DataFrame({"group": groups, "split": splits, "label": labels})
    assert set(splits) == {"train", "val", "test"} and len(splits) == len(files)
    assert (sides.groupby("group")["split"].nunique() == 1).all()
    for label, size in Counter(labels).items():
        counts = Counter(sides.loc[sides["label"] == label, "split"])
        assert all(abs(counts[split] - round(0.1 * size)) <= 2 for split in ("val", "test"))
    quota = sum(round(0.1 * size) for size in Counter(labels).values())
    assert all(abs(splits.count(split) - quota) <= 1 for split in ("val", "test"))

    order = list(range(len(files)))
    random.Random(seed).shuffle(order)
    shuffled = drawn_splits(
        *([column[i] for i in order] for column in (files, labels, groups)), SplitFractions(seed=seed)
    )
    assert shuffled == [splits[i] for i in order]


@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_validation_is_a_tenth_in_whole_groups(classes: list[list[int]], seed: int) -> None:
    files, labels, groups = archive(classes)
    images = images_table(
        len(files), file=files, label=labels, split=["test" if g % 7 == 3 else "train" for g in groups]
    )
    images["image_id"] += 4
    by_id = pd.Series(groups, images["image_id"])
    train = images[images["split"] == "train"]
    ids = validation_ids(images, by_id[train["image_id"]], seed)
    assert ids == sorted(set(ids)) == validation_ids(images, by_id, seed) and set(ids) <= set(train["image_id"])
    assert set(by_id[ids]).isdisjoint(by_id[sorted(set(train["image_id"]) - set(ids))])
    assert abs(len(ids) - np.ceil(len(train) / 10)) <= 1
    counts = train.set_index("image_id").loc[ids, "label"].value_counts()
    for label, size in train["label"].value_counts().items():
        assert abs(counts.get(label, 0) - size / 10) < 3


def test_twins_in_every_class_are_shared_out_among_classes() -> None:
    files, labels, groups = archive([[2] * 5] * 10)
    splits = drawn_splits(files, labels, groups, SplitFractions())
    assert Counter(splits) == {"train": 80, "val": 10, "test": 10}
    for split in ("val", "test"):
        assert set(Counter(label for label, own in zip(labels, splits, strict=True) if own == split).values()) == {2}


def test_a_group_of_most_images_stays_in_train() -> None:
    files, labels, groups = archive([[70, *[1] * 30], [1] * 20])
    splits = drawn_splits(files, labels, groups, SplitFractions())
    assert Counter(splits) == {"train": 96, "val": 12, "test": 12} and set(splits[:70]) == {"train"}
    _, sentence = kept_together(pd.Series(groups), pd.Series(splits))
    assert sentence == "kept on one side of the split, in 1 groups of up to 70 images"


def test_too_few_groups_are_split_and_the_message_says_so() -> None:
    files, labels, groups = archive([[40, 37], [20]])
    splits = drawn_splits(files, labels, groups, SplitFractions())
    assert splits == drawn_splits(files, labels, range(97), SplitFractions())
    assert Counter(splits) == {"train": 77, "val": 10, "test": 10}
    linked, sentence = kept_together(pd.Series(groups), pd.Series(splits))
    assert linked.all() and sentence == (
        "split all the same, because 3 groups of up to 40 images are too few; "
        "name every image's split to keep them apart"
    )
    lone = images_table(2, split=["train", "test"])
    with pytest.raises(UserError, match="1 train image, and none to validate on"):
        validation_ids(lone, lone["image_id"], 0)


# --- as prepared and reported -----------------------------------------------------------------------


def mine(root: Path, **options: object) -> FolderDataset:
    """60 images in twos: turned copies, images of other looks with the same captions, or the same file twice."""
    rows = ["file,caption,label"]
    for i in range(60):
        pair, kind = i // 2, i // 2 % 3
        path = root / f"images/{i}.png"
        picture(path, (3 * pair, 50, 0), side=16, height=16, seed=i if kind == 1 else pair + 100)
        if kind == 0 and i % 2:
            Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
        own = f"pair {pair}" if kind == 1 else i
        rows += [f"{i}.png,{text} {own},{'pond' if i < 24 else 'port'}" for text in ("a view of", "number")]
        rows.append(f"{i}.png,seen from above,{'pond' if i < 24 else 'port'}")
    (root / "captions.csv").write_text("\n".join(rows))
    return FolderDataset(source="folder", title="Mine", root=str(root), annotations="captions.csv", **options)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.output


def test_preparing_splits_in_groups_and_reports_what_repeats(tmp_path: Path) -> None:
    found = prepare(mine(tmp_path), tmp_path / "out")
    assert str(found[1]).startswith(
        "60 images are near-duplicates of another or have the same captions; "
        "kept on one side of the split, in 30 groups of up to 2 images"
    )
    images = read_frame(tmp_path / "out/images.csv", IMAGES)
    assert Counter(images["split"]) == {"train": 48, "val": 6, "test": 6}
    pair = images["file"].str.removesuffix(".png").astype(int) // 2
    assert (images.groupby(pair)["split"].nunique() == 1).all()
    record = tmp_path / "record.json"
    said = call("prepare", "--spec", mine(tmp_path).model_dump_json(), "--folder", tmp_path / "out", "--record", record)
    for split in ("test", "val"):
        sentence = f"{split} repeats 33.3 % of its captions, the captions of 0.0 % of its images as a set, and 0.0 % of"
        assert sentence in said
    assert read_json(record)["repeats"][0] == {"split": "test", "captions": 1 / 3, "caption_sets": 0.0, "images": 0.0}


def test_the_validation_of_a_seed_is_drawn_in_groups_and_reported(tmp_path: Path) -> None:
    folder, out, record = tmp_path / "out", tmp_path / "val.csv", tmp_path / "record.json"
    prepare(mine(tmp_path, split=SplitFractions(val=0)), folder)
    images = read_frame(folder / "images.csv", IMAGES)
    pair = images["file"].str.removesuffix(".png").astype(int) // 2
    for seed in range(4):
        said = call("split", "--folder", folder, "--seed", seed, "--out", out, "--record", record)
        chosen = images["image_id"].isin(read_frame(out, VALIDATION)["image_id"])
        train = (images["split"] == "train") & ~chosen
        assert chosen.sum() == 6 and set(pair[chosen]).isdisjoint(pair[train])
        assert "54 train images are near-duplicates of another or have the same captions; kept on one side" in said
        assert "val repeats 33.3 % of its captions, the captions of 0.0 % of its images as a set" in said
    assert read_json(record)["repeats"] == [{"split": "val", "captions": 1 / 3, "caption_sets": 0.0, "images": 0.0}]


def test_repeats_of_official_splits_are_counted_and_the_splits_kept(published: Options, tmp_path: Path) -> None:
    texts = {"train": [("a", "b"), ("c", "c")], "val": [("b", "a"), ("a", "d")], "test": [("e", "f"), ("c", "e")]}
    entries = [
        entry(f"pond_{split}{i}.png", split, captions=own)
        for split, sets in texts.items()
        for i, own in enumerate(sets)
    ]
    options, folder, out = published(*entries), tmp_path / "out", tmp_path / "val.csv"
    for i, name in enumerate(("train0", "train1", "val0", "test0")):
        picture(Path(options.root) / f"images/pond_{name}.png", seed=i)
    for name, source in (("val1", "val0"), ("test1", "train0")):
        image = Image.open(Path(options.root) / f"images/pond_{source}.png").transpose(Image.Transpose.ROTATE_180)
        image.save(Path(options.root) / f"images/pond_{name}.png")
    said = call("prepare", "--spec", options.model_dump_json(), "--folder", folder)
    assert "val repeats 75.0 % of its captions, the captions of 50.0 % of its images as a set, and 0.0 % of" in said
    assert "test repeats 25.0 % of its captions, the captions of 0.0 % of its images as a set, and 50.0 % of" in said
    assert read_frame(folder / "images.csv", IMAGES)["split"].tolist() == [s for s in texts for _ in range(2)]
    assert call("split", "--folder", folder, "--seed", 1, "--out", out) == ""
    assert read_frame(out, VALIDATION)["image_id"].tolist() == [2, 3]
