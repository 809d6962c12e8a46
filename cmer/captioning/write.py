"""Captioning of a prepared dataset, which resumes after an interruption. Called by the command."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from cmer.captioning import MODULES
from cmer.captioning.base import Captioner, RichText
from cmer.captioning.build import build
from cmer.captioning.partial import Partial
from cmer.captioning.rich import encode, write_rich
from cmer.config.base import Model
from cmer.config.captioners import Captioner as CaptionerSettings
from cmer.config.datasets import Dataset
from cmer.data.frames import IMAGES, read_frame
from cmer.data.images import ImageStore, open_images
from cmer.errors import UserError
from cmer.features.device import device, threads
from cmer.io import cores, digest, locked
from cmer.progress import progress
from cmer.provenance import code_digest, versions

UNFINISHED = Path("work/captions")


class CaptionSpec(Model):
    """Settings that captioning a dataset reads."""

    dataset: Dataset
    captioner: CaptionerSettings


def caption_dataset(spec: CaptionSpec, folder: Path, out: Path) -> dict[str, Any]:
    """Write the rich texts of all images of a prepared dataset, and their record beside them.

    Args:
        spec: dataset and captioner.
        folder: folder of the prepared dataset.
        out: JSONL file for the texts; the record has the suffix .json.

    Returns:
        the captioner's facts for the run-time record.

    Raises:
        UserError: an image is missing, changed or broken, the captioner cannot be built, or it gives an image no text.
    """
    frame = read_frame(folder / "images.csv", IMAGES)
    images = list(zip(frame["file"].tolist(), frame["sha256"].tolist(), strict=True))
    with threads(spec.captioner.cpu_threads):
        captioner = build(spec.captioner)
        facts = captioner.check([file for file, _ in images])
        record = {
            "captioner": spec.captioner.model_dump(),
            "origin": captioner.origin(),
            "code": code_digest(*MODULES, *spec.captioner.modules()),
            "versions": versions(),
            "device": device().type,
        }
        store = open_images(spec.dataset, folder) if spec.captioner.reads_images else None
        shown = store.raster.model_dump() if store and store.raster else None  # another conversion gives other pixels
        name = digest([record, images, shown])
        with locked(UNFINISHED / f"{name}.lock"):
            partial = Partial(UNFINISHED / f"{name}.jsonl", images, spec.captioner.batch_size)
            _caption(captioner, images, store, partial)
            write_rich(out, partial.lines, record)
            partial.path.unlink()
    return facts


def _caption(
    captioner: Captioner, images: Sequence[tuple[str, str]], store: ImageStore | None, partial: Partial
) -> None:
    size = captioner.options.batch_size
    with progress("Captioned images", len(images), len(partial.lines)) as advance, ThreadPoolExecutor(cores()) as pool:
        for start in range(len(partial.lines), len(images), size):
            batch = images[start : start + size]
            files, hashes = zip(*batch, strict=True)
            pixels: list[Image.Image] = list(pool.map(store.load, files, hashes)) if store else []
            texts = captioner.caption(files, pixels)
            partial.append([encode(*image, _usable(text, image[0])) for image, text in zip(batch, texts, strict=True)])
            advance(len(batch))


def _usable(texts: RichText, file: str) -> RichText:
    """The texts on one line each, without blank ones."""
    single = {granularity: [" ".join(text.split()) for text in given] for granularity, given in texts.items()}
    kept = {granularity: [text for text in given if text] for granularity, given in single.items()}
    if not any(kept.values()):
        raise UserError(f"the captioner wrote nothing about image {file}; change its prompts")
    return {granularity: given for granularity, given in kept.items() if given}
