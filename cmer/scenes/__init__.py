"""The demo dataset: drawn overhead scenes with captions, in the layout of published datasets."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from cmer.config.datasets import DemoDataset
from cmer.io import atomic, process_pool, write_json
from cmer.progress import progress
from cmer.scenes import nature, town, transport  # noqa: F401  (they register their scenes in SCENES)
from cmer.scenes.canvas import Canvas, Point
from cmer.scenes.captions import SCENES, Facts, five_captions, side_of


@dataclass(frozen=True)
class Drawing:
    """A drawn image, its facts, the positions of the counted objects (units from the centre) and its captions."""

    image: Image.Image
    facts: Facts
    targets: list[Point]
    captions: list[str]


def draw_scene(name: str, number: int, *, seed: int, size: int) -> Drawing:
    """Draw image `number` of a scene class; the arguments determine every byte.

    Args:
        name: a key of `SCENES`.
        number: number of the image within its class.
        seed: seed of the dataset.
        size: side of the image in pixels.
    """
    rng = np.random.default_rng([seed, number, *name.encode()])
    canvas = Canvas(rng, size)
    facts = SCENES[name].draw(canvas)
    targets = canvas.seen()
    facts = replace(facts, count=len(targets), side=side_of(targets))
    return Drawing(canvas.finish(), facts, targets, five_captions(SCENES[name], facts, rng))


def draw_dataset(options: DemoDataset, folder: Path | str) -> None:
    """Write images.tar (uncompressed JPEGs named `{class}_{number}.jpg`) and dataset.json into `folder`.

    In each class, about 70 % of the images are train, 10 % val and 20 % test. The same options give the same bytes.
    """
    splits = {name: _splits(name, options) for name in sorted(SCENES)}
    jobs = [(name, number) for name in splits for number in range(options.images_per_class)]
    images = []
    with (
        atomic(Path(folder) / "images.tar") as path,
        tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar,
        process_pool() as pool,
        progress("Drawing the demo images", len(jobs)) as done,
    ):
        drawn = pool.map(partial(_draw, options), jobs, chunksize=4)
        for (name, number), (data, captions) in zip(jobs, drawn, strict=True):
            member = tarfile.TarInfo(f"{name}_{number + 1}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            sentences = [{"raw": caption} for caption in captions]
            done(1)
            images.append({"filename": member.name, "split": splits[name][number], "sentences": sentences})
    write_json(Path(folder) / "dataset.json", {"dataset": "demo", "images": images})


def _draw(options: DemoDataset, job: tuple[str, int]) -> tuple[bytes, list[str]]:
    drawing = draw_scene(*job, seed=options.seed, size=options.size)
    buffer = io.BytesIO()
    drawing.image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue(), drawing.captions


def _splits(name: str, options: DemoDataset) -> list[str]:
    count = options.images_per_class
    test, val = max(1, round(0.2 * count)), max(1, round(0.1 * count))
    ordered = np.array(["test"] * test + ["val"] * val + ["train"] * (count - test - val))
    return [str(split) for split in np.random.default_rng([options.seed, *name.encode()]).permutation(ordered)]
