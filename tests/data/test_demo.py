import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from cmer.config.datasets import DemoDataset
from cmer.data.frames import IMAGES, read_frame
from cmer.data.images import open_images
from cmer.data.prepare import prepare
from cmer.io import sha256
from cmer.scenes import Drawing, draw_dataset, draw_scene
from cmer.scenes.canvas import SAFE, Canvas
from cmer.scenes.captions import SCENES, side_of

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
THINGS = {
    "airport": "planes?|airplanes?|aircrafts?", "baseballfield": "baseball (?:fields?|diamonds?)", "bridge": "bridges?",
    "beach": "umbrellas?|boats?", "denseresidential": "pools?", "desert": "rocks?|bush(?:es)?", "stadium": "bus(?:es)?",
    "farmland": "fields?|houses?|farmhouses?", "forest": "cabins?|huts?|houses?|roofs?", "parking": "bus(?:es)?",
    "playground": "courts?", "pond": "ponds?", "port": "boats?|ships?", "railwaystation": "trains?",
    "sparseresidential": "houses?|villas?|roofs?", "storagetanks": "tanks?|roofs?",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawings() -> dict[str, list[Drawing]]:
    return {name: [draw_scene(name, number, seed=3, size=32) for number in range(12)] for name in SCENES}


def test_at_least_twelve_classes_are_drawn(drawings: dict[str, list[Drawing]]) -> None:
    assert set(drawings) == set(THINGS) and len(drawings) >= 12


@pytest.mark.parametrize("name", THINGS)
def test_captions_tell_the_drawn_number(drawings: dict[str, list[Drawing]], name: str) -> None:
    told = 0
    for drawing in drawings[name]:
        assert 1 <= len(drawing.targets) <= 5 and len(drawing.captions) == 5
        for caption in drawing.captions:
            for word in re.findall(rf"\b({'|'.join(NUMBERS)}|[1-5]) (?:[a-z-]+ ){{0,3}}?(?:{THINGS[name]})\b", caption):
                told += 1
                assert NUMBERS.get(word) or int(word) == len(drawing.targets), caption
                assert NUMBERS.get(word, len(drawing.targets)) == len(drawing.targets), caption
    assert told >= 6


def test_captions_are_whole_sentences_of_plain_words(drawings: dict[str, list[Drawing]]) -> None:
    for drawing in itertools.chain(*drawings.values()):
        for caption in drawing.captions:
            assert re.fullmatch(r"[a-z0-9][a-z0-9 ,-]* \.", caption), caption
            assert not re.search(r"\ba [aeiou]|  ", caption), caption


def test_what_is_counted_is_in_view_and_apart(drawings: dict[str, list[Drawing]]) -> None:
    for drawing in itertools.chain(*drawings.values()):
        assert all(math.hypot(x, y) < SAFE for x, y in drawing.targets)
        assert all(math.dist(a, b) > 13 for a, b in itertools.combinations(drawing.targets, 2))
        assert drawing.facts.side == side_of(drawing.targets)


def test_targets_are_where_they_are_said_to_be() -> None:
    """A dot marked as a target is found again in the finished image, at every angle."""
    for seed in range(8):
        canvas = Canvas(np.random.default_rng(seed), 128)
        canvas.disc(60, -30, 6, (255, 255, 255))
        canvas.mark(60, -30)
        ys, xs = np.nonzero(np.asarray(canvas.finish().convert("L")) > 128)
        (x, y) = canvas.seen()[0]
        assert math.dist((xs.mean() * 2 - 127, ys.mean() * 2 - 127), (x, y)) < 1.5


def test_wordings_vary_and_some_captions_are_shared() -> None:
    drawn = [draw_scene(name, number, seed=0, size=32) for name in ("pond", "forest") for number in range(25)]
    distinct = [len(set(drawing.captions)) for drawing in drawn]
    assert 1 in distinct and 2 in distinct and distinct.count(5) > 15
    owners: dict[str, set[int]] = {}
    for number, drawing in enumerate(drawn):
        for caption in drawing.captions:
            owners.setdefault(caption, set()).add(number)
    assert any(len(images) > 1 for images in owners.values())


def test_the_same_settings_give_the_same_bytes_and_a_set_that_prepares(tmp_path: Path) -> None:
    options = DemoDataset(source="demo", title="demo", seed=5, images_per_class=5, size=32)
    for folder in ("a", "b"):
        draw_dataset(options, tmp_path / folder)
    for file in ("images.tar", "dataset.json"):
        assert sha256(tmp_path / "a" / file) == sha256(tmp_path / "b" / file)
    other = options.model_copy(update={"seed": 6})
    assert not np.array_equal(*(draw_scene("pond", 0, seed=o.seed, size=32).image for o in (options, other)))
    assert prepare(options, tmp_path / "a") == []
    images = read_frame(tmp_path / "a/images.csv", IMAGES)
    assert images["split"].value_counts().to_dict() == {"train": 48, "test": 16, "val": 16}
    assert images["label"].nunique() == len(SCENES) and "storage tanks" in set(images["label"])
    store = open_images(options, tmp_path / "a")
    assert all(store.load(row.file, row.sha256).size == (32, 32) for row in images.itertuples())
    entries = json.loads((tmp_path / "a/dataset.json").read_text())["images"]
    assert re.fullmatch(r"airport_\d+\.jpg", entries[0]["filename"]) and len(entries[0]["sentences"]) == 5
