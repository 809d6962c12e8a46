"""From an annotation file and its images to images.csv and captions.csv, the description that all later steps read."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cmer.config.datasets import Dataset, FolderDataset, NoLabels, PrefixLabels, PublishedDataset
from cmer.data.annotations import Entry, files_below, is_image, read_entries, some
from cmer.data.cards import card, fingerprint
from cmer.data.fingerprint import Match, compare, differences, pictures
from cmer.data.frames import write_frame
from cmer.data.images import ImageStore, open_images
from cmer.data.labels import known_labels, labels_of, merged
from cmer.data.layout import Layout, layout_of
from cmer.data.raster import UndecodableError
from cmer.data.similar import image_hash
from cmer.data.splits import drawn_splits
from cmer.errors import UserError
from cmer.io import atomic, cores
from cmer.progress import progress


@dataclass(frozen=True)
class Finding:
    """One kind of flaw: what it is, what dropping does about it, and which images (or captions' images) have it."""

    what: str
    remedy: str
    files: list[str]
    stops: bool = True

    def __str__(self) -> str:
        """One sentence with the count and up to ten names."""
        return f"{len(self.files):,} {self.what}; {self.remedy}: {some(self.files)}"


def prepare(options: Dataset, folder: Path | str) -> list[Finding]:
    """Check every caption and decode every image once; write images.csv, captions.csv and hashes.csv into `folder`.

    A caption is blank where it holds no letter (of any script; digits, signs and emoji are none): RSICD has five (" ."
    and "1 ."), none of them in test. Labels missing under the rule `prefix` are a known trait of RSICD's 921 numeric
    names and never stop; under every other rule they are flaws. With `on_bad: drop` blank captions, bad images and
    images left without a caption are dropped; an image without a label is kept, unlabelled.

    Returns:
        the flaws found and dropped, and those that are only worth a warning.

    Raises:
        UserError: the dataset cannot be read, or has flaws and `on_bad` is `stop`; the message lists them.
    """
    folder = Path(folder)
    layout = layout_of(options, folder)
    entries = read_entries(layout)
    labels, findings = _labels(options, layout, entries)
    images, captions = _read(options, layout, folder, entries, labels)
    if isinstance(options, PublishedDataset):
        shown = pictures(fingerprint(options.source), entries, images["hash"].tolist())
        _stop_unless_published(options, layout, [shown])
    findings += _findings(options, layout, images, captions) + _notes(layout, entries, images)
    findings = [finding for finding in findings if finding.files]
    flaws = [finding for finding in findings if finding.stops]
    if flaws and options.on_bad == "stop":
        report = "\n".join(f"  - {flaw}" for flaw in flaws)
        switch = f"datasets.{folder.name}.on_bad"
        fetched = layout.images is None and isinstance(options, PublishedDataset)
        remedy = "Fetch another copy (first of `sources`, --forcerun fetch_data)" if fetched else "Mend them"
        raise UserError(f"{options.title} has flaws:\n{report}\n{remedy}, or set {switch}: drop to go on without them.")
    _write(folder, images, captions)
    return findings


def _labels(options: Dataset, layout: Layout, entries: list[Entry]) -> tuple[list[str], list[Finding]]:
    """Labels of the images, once it is known that a published dataset is what it says."""
    if not isinstance(options, PublishedDataset):
        return labels_of(entries, layout.labels, layout.root), []
    labels, warning = known_labels(entries, layout.labels, layout.root)
    *matches, classes = compare(fingerprint(options.source), entries, labels)
    _stop_unless_published(options, layout, matches)
    remedy = "kept" if not warning else f"{warning}; {card(options.source).by_hand}"
    return labels, [Finding("classes are not as published", remedy, classes.names, stops=False)]


def _stop_unless_published(options: PublishedDataset, layout: Layout, matches: list[Match]) -> None:
    if found := differences(matches):
        report = "\n".join(f"  - {difference}" for difference in found)
        raise UserError(
            f"{layout.annotations} is not {options.title} as its authors published it:\n{report}\n"
            "Get another copy, or work with this one as what it is, a dataset of your own (source: folder)."
        )


def _read(
    options: Dataset, layout: Layout, folder: Path, entries: list[Entry], labels: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All images, with `problem` and `reason`, and all captions, before anything is dropped."""
    files = [entry.filename for entry in entries]
    images = inspect_images(open_images(options, folder), files, options.title)
    images["file"] = files
    images["label"] = merged(labels, options.merge)
    images["split"] = [entry.split for entry in entries]
    if layout.split is not None and not any(images["split"]):
        images["split"] = drawn_splits(files, images["label"].tolist(), layout.split)
    texts = [entry.captions for entry in entries]
    if layout.caption is not None:
        texts = [[layout.caption.replace("{label}", label)] if label else [] for label in images["label"]]
    rows = [(number, caption) for number, captions in enumerate(texts) for caption in captions]
    captions = pd.DataFrame(rows, columns=["image", "caption"])
    blank = [not any(letter.isalpha() for letter in caption) for caption in captions["caption"]]
    captions["blank"] = pd.Series(blank, dtype=bool)
    images["captions"] = (~captions["blank"]).groupby(captions["image"]).sum().reindex(images.index, fill_value=0)
    return images, captions


def inspect_images(store: ImageStore, files: list[str], title: str) -> pd.DataFrame:
    """Width, height, sha256, hash, `problem` ("", missing, undecodable) and `reason` of images, decoded once."""
    found = []
    with (
        ProcessPoolExecutor(cores()) as pool,  # threads wait for each other half of the time
        progress(f"Checking the images of {title}", len(files)) as done,
    ):
        try:
            for inspected in pool.map(partial(_inspect, store), files, chunksize=32):
                found.append(inspected)
                done(1)
        except BrokenProcessPool:
            near = some(files[len(found) : len(found) + 64], most=3)
            raise UserError(
                f"a process that checked the images of {title} was ended, perhaps for want of memory, at {near}; "
                "cut very large images into tiles, or give the step more memory"
            ) from None
    return pd.DataFrame(found, columns=["width", "height", "sha256", "hash", "problem", "reason"])


def _inspect(store: ImageStore, file: str) -> tuple[int, int, str, str, str, str]:
    """Width, height, SHA-256 of the bytes, hash of the picture, what is wrong, and why."""
    try:
        data = store.read(file)
        image = store.decode(data)
    except FileNotFoundError:
        return 0, 0, "", "", "missing", ""
    except OSError as error:
        return 0, 0, "", "", "undecodable", error.strerror or str(error)
    except UndecodableError as error:
        return 0, 0, "", "", "undecodable", str(error)
    return image.width, image.height, hashlib.sha256(data).hexdigest(), image_hash(image), "", ""


def _findings(options: Dataset, layout: Layout, images: pd.DataFrame, captions: pd.DataFrame) -> list[Finding]:
    def files(rows: pd.Series[bool]) -> list[str]:
        return images.loc[rows, "file"].tolist()

    blank = images["file"].iloc[captions.loc[captions["blank"], "image"]].tolist()
    broken = images[images["problem"] == "undecodable"]
    undecodable = [f"{file} ({reason})" for file, reason in zip(broken["file"], broken["reason"], strict=True)]
    rule = layout.labels
    no_label = (images["label"] == "") & (not isinstance(rule, NoLabels))
    # Prefixes and published sets are known to leave some without; a file need not have the usual column.
    lax = isinstance(rule, PrefixLabels) or isinstance(options, PublishedDataset)
    lax |= isinstance(options, FolderDataset) and options.labels is None and bool(no_label.all())
    findings = [
        Finding("captions hold no letter", "drop leaves them out", blank),
        Finding("images are missing", "drop leaves them out", files(images["problem"] == "missing")),
        Finding("images cannot be decoded", "drop leaves them out", undecodable),
        Finding("images have no caption", "drop leaves them out", files(images["captions"] == 0)),
        Finding("images have no scene label", "kept without prompt", files(no_label), stops=not lax),
        Finding("images have the bytes of an image of another split", "kept", files(_leaks(images)), stops=False),
    ]
    lost = files(_bad(images) & (images["split"] == "test"))
    return [*findings, Finding("of these are test images", "recalls will not compare with the official split", lost)]


def _notes(layout: Layout, entries: list[Entry], images: pd.DataFrame) -> list[Finding]:
    """What is no flaw but worth a warning: splits that were drawn, files that were not taken for images."""
    drawn = [entry.filename for entry in entries if not entry.split]
    sizes = Counter(images["split"])
    shares = ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "val", "test"))
    others = [] if layout.caption is None else [name for name in files_below(layout.annotations) if not is_image(name)]
    return [
        Finding("images name no split", f"drawn: {shares}", drawn, stops=False),
        Finding("files are no images by their names", "ignored", others, stops=False),
    ]


def _leaks(images: pd.DataFrame) -> pd.Series[bool]:
    splits = images.groupby("sha256")["split"].transform("nunique")
    return (images["sha256"] != "") & (splits > 1)


def _bad(images: pd.DataFrame) -> pd.Series[bool]:
    return (images["problem"] != "") | (images["captions"] == 0)


def _write(folder: Path, images: pd.DataFrame, captions: pd.DataFrame) -> None:
    kept = images[~_bad(images)].copy()
    for split in ("train", "test"):
        if split not in set(kept["split"]):
            raise UserError(
                f"no usable image is left in split {split!r} ({len(images):,} images were found in all); check the "
                "dataset's `root` and `images`"
            )
    kept["image_id"] = range(len(kept))
    texts = captions[~captions["blank"]].join(kept["image_id"], on="image", how="inner")
    texts = texts.astype({"image_id": "int64"})
    texts["caption_id"] = range(len(texts))
    columns = ["image_id", "file", "label", "split", "width", "height", "sha256"]
    frames = {
        "captions.csv": texts[["caption_id", "image_id", "caption"]],
        "hashes.csv": kept[["image_id", "hash"]],
        "images.csv": kept[columns],
    }
    with ExitStack() as stack:  # all are on the disk before one of them takes its place: the three belong together
        places = {name: stack.enter_context(atomic(folder / name)) for name in frames}
        for name, frame in frames.items():
            write_frame(places[name], frame)
