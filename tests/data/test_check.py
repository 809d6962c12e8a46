import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import entry
from PIL import Image
from raster_cases import picture
from typer.testing import CliRunner

from cmer.cli.data import app
from cmer.config.base import validate
from cmer.config.datasets import PublishedDataset
from cmer.data import cards
from cmer.data.annotations import Entry
from cmer.data.cards import Card, Fingerprint
from cmer.data.fingerprint import compare, fingerprint_of, sample_hashes
from cmer.data.frames import HASHES, IMAGES, read_frame
from cmer.data.prepare import prepare
from cmer.errors import UserError

SCENES = ("pond", "port", "beach")


def entries(test: int = 12, train: int = 30, val: int = 0) -> list[dict[str, Any]]:
    """Images of three classes in turn, the first `test` of them to test on, the next `val` to validate on."""
    splits = ["test"] * test + ["val"] * val + ["train"] * train
    named = [(f"{SCENES[number % 3]}_{number}.jpg", SCENES[number % 3], number) for number in range(len(splits))]
    return [
        entry(name, split, (f"a {scene} .", f"number {number} ."))
        for (name, scene, number), split in zip(named, splits, strict=True)
    ]


def parsed(items: list[dict[str, Any]]) -> list[Entry]:
    return [Entry.model_validate(item) for item in items]


def labels(items: list[dict[str, Any]]) -> list[str]:
    return [item["filename"].partition("_")[0] for item in items]


def differing(known: list[dict[str, Any]], copy: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What differs between two sets, with the names given."""
    matches = compare(fingerprint_of(parsed(known), labels(known)), parsed(copy), labels(copy))
    return {match.what: match.names for match in matches if not match.same}


def test_a_copy_in_another_order_folder_and_format_is_the_same() -> None:
    copy = [item | {"filename": f"all/{item['filename'].replace('.jpg', '.png')}"} for item in reversed(entries())]
    assert [
        match.same
        for match in compare(
            fingerprint_of(parsed(entries()), labels(entries())), parsed(copy), labels(entries())[::-1]
        )
    ]
    assert differing(entries(), list(reversed(entries()))) == {}


def test_test_images_among_the_train_images_are_named() -> None:
    copy = entries()
    for item in copy[:10]:
        item["split"] = "train"
    for item in copy[12:22]:
        item["split"] = "test"
    found = differing(entries(), copy)
    assert set(found) == {"names of the test images", "text of the train captions", "text of the test captions"}
    moved = [f"{item['filename']} is in train" for item in copy[:10]]
    assert found["names of the test images"] == moved + [
        f"{item['filename']} does not belong to test" for item in copy[12:22]
    ]


def test_lost_images_changed_captions_and_classes_are_told() -> None:
    assert "1 are missing" in differing(entries(), entries()[1:])["names of the test images"]
    copy = entries()
    copy[20]["sentences"][0]["raw"] = "something else"
    assert differing(entries(), copy) == {"text of the train captions": []}
    spaced = entries()
    spaced[20]["sentences"][0]["raw"] = spaced[20]["sentences"][0]["raw"].replace(" ", "  \n")
    assert differing(entries(), spaced) == {}
    (_, _, *_, classes) = compare(
        fingerprint_of(parsed(entries()), labels(entries())), parsed(entries()), ["pond"] * 42
    )
    assert classes.names[0] == "beach: 0 images, not 14"


def test_a_validation_split_of_a_set_without_one_counts_as_train() -> None:
    copy = entries()
    for item in copy[12:20]:
        item["split"] = "val"
    assert differing(entries(), copy) == {}
    assert "images in val" in differing(entries(val=4, train=26), entries())


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small dataset in place of RSITMD: its card, its fingerprint, and a copy of it."""
    known = validate(Card, cards.card("rsitmd").model_dump() | {"size": 8}, "card")
    root = tmp_path / "rsitmd"
    (root / "images").mkdir(parents=True)
    for number, item in enumerate(entries()):
        picture(root / "images" / item["filename"], (6 * number, 9, 9))
    write(root, entries())
    print_of = fingerprint_of(parsed(entries()), labels(entries()))
    for module in ("layout", "check", "prepare"):
        monkeypatch.setattr(f"cmer.data.{module}.card", lambda name: known)
    for module in ("check", "prepare"):
        monkeypatch.setattr(f"cmer.data.{module}.fingerprint", lambda name: print_of)
    return root


def write(root: Path, items: list[dict[str, Any]]) -> None:
    (root / "dataset_RSITMD.json").write_text(json.dumps({"images": items}))


def check(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_verb_prints_the_card_and_tells_what_differs(published: Path) -> None:
    code, shown = check("rsitmd", "--root", published)
    assert (
        code == 0
        and "These are the annotations of RSITMD; the fingerprint has no images" in shown
        and "doi:10.1109/TGRS.2021.3078451" in shown
    )
    (published / "images/pond_0.jpg").unlink()
    (published / "images/port_1.jpg").write_bytes(b"no image")
    code, shown = check("rsitmd", "--root", published)
    assert code == 1 and "pond_0.jpg is missing" in shown and "port_1.jpg" in shown and "2 of 11 differ" in shown
    code, shown = check("rsitmd", "--root", published, "--annotations-only")
    assert code == 0 and "the images were not opened" in shown


def test_the_verb_names_unknown_sets_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known are rsicd, rsitmd, sydney, ucm"):
        check("coco", "--root", tmp_path)
    with pytest.raises(UserError, match=r"contains neither dataset_RSITMD\.json"):
        check("rsitmd", "--root", tmp_path)


def test_preparing_stops_where_test_images_train(published: Path, tmp_path: Path) -> None:
    options = validate(PublishedDataset, {"source": "rsitmd", "root": str(published)}, "dataset")
    assert prepare(options, tmp_path / "out") == []
    assert set(read_frame(tmp_path / "out/images.csv", IMAGES)["label"]) == set(SCENES)
    copy = entries()
    copy[0]["split"], copy[20]["split"] = "train", "test"
    write(published, copy)
    before = (tmp_path / "out/images.csv").read_bytes()
    with pytest.raises(UserError, match=r"is not RSITMD as its authors published it:(.|\n)*pond_0\.jpg is in train"):
        prepare(options, tmp_path / "out")
    assert (tmp_path / "out/images.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["rsicd", "rsitmd", "ucm", "sydney"])
def test_every_card_is_whole(name: str) -> None:
    known, print_of = cards.card(name), cards.fingerprint(name)
    assert isinstance(print_of, Fingerprint) and set(print_of.digests) == set(print_of.images) == set(print_of.captions)
    assert [source.kind for source in known.sources][:1] == ["local"]
    assert f"{sum(print_of.images.values()):,}" in known.about
    assert sum(print_of.classes.values()) == sum(print_of.images.values())
    for split, text in print_of.names.items():
        assert len(text) == 8 * print_of.images[split]
        assert len({text[i : i + 8] for i in range(0, len(text), 8)}) == print_of.images[split]


def test_other_pictures_under_the_right_names_are_found(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for item in entries():
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        noise.resize((40, 40), Image.Resampling.NEAREST).save(published / "images" / item["filename"])
    options = validate(PublishedDataset, {"source": "rsitmd", "root": str(published)}, "dataset")
    prepare(options, tmp_path / "first")
    hashes = read_frame(tmp_path / "first/hashes.csv", HASHES)["hash"].tolist()
    real = fingerprint_of(parsed(entries()), labels(entries())).model_copy(
        update={"pictures": sample_hashes(parsed(entries()), hashes)}
    )
    for module in ("check", "prepare"):
        monkeypatch.setattr(f"cmer.data.{module}.fingerprint", lambda name: real)
    smaller = published / "images/pond_0.jpg"
    Image.open(smaller).resize((24, 24)).save(smaller)
    assert "pictures" not in check("rsitmd", "--root", published)[1].partition("differ.")[2]
    prepare(options, tmp_path / "second")
    swapped = (published / "images/port_1.jpg").read_bytes()
    (published / "images/port_1.jpg").write_bytes((published / "images/beach_2.jpg").read_bytes())
    (published / "images/beach_2.jpg").write_bytes(swapped)
    code, shown = check("rsitmd", "--root", published)
    assert code == 1 and "pictures, of a sample: port_1.jpg, beach_2.jpg" in shown
    with pytest.raises(UserError, match=r"pictures, of a sample: 42 published, 40 here: port_1\.jpg, beach_2\.jpg"):
        prepare(options, tmp_path / "third")


def test_images_that_are_not_there_are_told_with_all_else(published: Path) -> None:
    (published / "images").rename(published / "pictures")
    code, shown = check("rsitmd", "--root", published)
    assert code == 1 and "--annotations-only" in shown and "1 of 9 differ." in shown


def test_classes_of_the_right_size_with_other_images_are_told() -> None:
    swapped = labels(entries())
    swapped[0], swapped[1] = swapped[1], swapped[0]
    *matches, classes = compare(fingerprint_of(parsed(entries()), labels(entries())), parsed(entries()), swapped)
    assert all(match.same for match in matches)
    assert classes.names == ["classes of the published sizes, but with other images"]
