"""A small captioned dataset in the published layout, prepared as the workflow would."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmer.config.datasets import FolderDataset
from cmer.data.frames import CAPTIONS, IMAGES, QUERIES, read_frame, write_frame
from cmer.data.pairs import Pairs
from cmer.data.prepare import prepare
from cmer.data.prompts import augment
from cmer.data.splits import validation_ids

COLOURS = {"forest": (20, 120, 30), "desert": (210, 180, 110), "pond": (30, 60, 200)}


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset: its settings, the folder of its files, and the tables read."""

    options: FolderDataset
    folder: Path
    captions: Path
    queries: Path
    validation: Path

    @property
    def pairs(self) -> Pairs:
        return Pairs.read(self.folder, self.captions, self.validation)

    @property
    def texts(self) -> list[str]:
        asked = read_frame(self.queries, QUERIES).drop(columns=["caption_id", "image_id"])
        return self.pairs.texts + self.pairs.prompts + asked.to_numpy().ravel().tolist()


def draw(folder: Path, per_class: int) -> None:
    """Noisy squares of a colour a class, five captions each, one of them shared within the class."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images = []
    for name, colour in COLOURS.items():
        for i in range(per_class):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{name}_{i}.png")
            split = "test" if i % 4 == 3 else "train"
            texts = [f"{name} number {i} seen from above, {word}" for word in ("one", "two", "three", "four")]
            sentences = [{"raw": text} for text in [*texts, f"a {name} seen from above"]]
            images.append({"filename": f"{name}_{i}.png", "split": split, "sentences": sentences})
    (folder / "dataset.json").write_text(json.dumps({"images": images}))


def prepare_squares(folder: Path, per_class: int) -> Prepared:
    """Draw the dataset under `folder` and take it through prepare, split and augment."""
    draw(folder / "published", per_class)
    data = folder / "data"
    options = FolderDataset(source="folder", title="squares", root=str(folder / "published"))
    prepare(options, data)
    images, captions = read_frame(data / "images.csv", IMAGES), read_frame(data / "captions.csv", CAPTIONS)
    prompted, queries = augment(options.template, images, captions)
    made = Prepared(options, data, data / "prompted.csv", data / "queries.csv", data / "validation.csv")
    write_frame(made.captions, prompted)
    write_frame(made.queries, queries)
    write_frame(made.validation, pd.DataFrame({"image_id": validation_ids(images, images["image_id"], 0)}))
    return made


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """36 images of three classes: 27 train (some of them validate), 9 test."""
    return prepare_squares(tmp_path_factory.mktemp("squares"), per_class=12)


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """480 images of three classes, 120 of them test: enough to tell chance from knowing the class."""
    return prepare_squares(tmp_path_factory.mktemp("crowd"), per_class=160)
