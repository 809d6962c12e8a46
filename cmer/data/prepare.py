"""From an annotation file and its images to images.csv and captions.csv, the description that all later steps read."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cmer.config import Dataset, FolderDataset, KnownDataset, NoLabels, PrefixLabels
from cmer.data.annotations import Entry, Layout, layout_of, read_annotations, some
from cmer.data.cards import card, fingerprint
from cmer.data.fingerprint import compare
from cmer.data.frames import write_frame
from cmer.data.images import UNDECODABLE, ImageStore, decode, open_images
from cmer.data.labels import known_labels, labels_of, merged
from cmer.progress import progress
from cmer.registry import UserError


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
    """Check every caption and decode every image once; write images.csv and captions.csv into `folder`.

    A caption is blank where it holds no letter: RSICD has five (" ." and "1 ."), none of them in test. Labels
    missing under the rule `prefix` are a known trait of RSICD's 921 numeric names and never stop; under every other
    rule they are flaws. With `on_bad: drop` blank captions, bad images and images left without a caption are dropped;
    an image without a label is kept, unlabelled.

    Returns:
        the flaws found and dropped, and those that are only worth a warning.

    Raises:
        UserError: the dataset cannot be read, or has flaws and `on_bad` is `stop`; the message lists them.
    """
    folder = Path(folder)
    layout = layout_of(options, folder)
    entries = read_annotations(layout.annotations)
    labels, findings = _labels(options, layout, entries)
    images, captions = _read(options, folder, entries, labels)
    findings = [finding for finding in findings + _findings(options, layout, images, captions) if finding.files]
    flaws = [finding for finding in findings if finding.stops]
    if flaws and options.on_bad == "stop":
        report = "\n".join(f"  - {flaw}" for flaw in flaws)
        switch = f"datasets.{folder.name}.on_bad"
        raise UserError(
            f"{options.title} has flaws:\n{report}\nMend them, or set {switch}: drop to go on without them."
        )
    _write(folder, images, captions)
    return findings


def _labels(options: Dataset, layout: Layout, entries: list[Entry]) -> tuple[list[str], list[Finding]]:
    """Labels of the images, once it is known that a published dataset is what it says."""
    if not isinstance(options, KnownDataset):
        return labels_of(entries, layout.labels, layout.root), []
    labels, warning = known_labels(entries, layout.labels, layout.root)
    *matches, classes = compare(fingerprint(options.source), entries, labels)
    if differences := [f"  - {match}" for match in matches if not match.same]:
        raise UserError(
            f"{layout.annotations} is not {options.title} as its authors published it:\n"
            + "\n".join(differences)
            + "\n"
            "Get another copy, or work with this one as what it is, a dataset of your own (source: folder)."
        )
    remedy = "kept" if not warning else f"{warning}; {card(options.source).by_hand}"
    return labels, [Finding("classes are not of their published size", remedy, classes.names, stops=False)]


def _read(options: Dataset, folder: Path, entries: list[Entry], labels: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All images, with `problem` ("", missing, undecodable), and all captions, before anything is dropped."""
    files = [entry.filename for entry in entries]
    images = inspect_images(open_images(options, folder), files, options.title)
    images["file"] = files
    images["label"] = merged(labels, options.merge)
    images["split"] = [entry.split for entry in entries]
    rows = [(number, caption) for number, entry in enumerate(entries) for caption in entry.captions]
    captions = pd.DataFrame(rows, columns=["image", "caption"])
    captions["blank"] = [not any(letter.isalpha() for letter in caption) for caption in captions["caption"]]
    images["captions"] = (~captions["blank"]).groupby(captions["image"]).sum().reindex(images.index, fill_value=0)
    return images, captions


def inspect_images(store: ImageStore, files: list[str], title: str) -> pd.DataFrame:
    """Width, height, sha256 and `problem` ("", missing, undecodable) of every image, decoded once."""
    # Decoding and hashing release the interpreter lock, so threads use all cores.
    found = []
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        progress(f"Checking the images of {title}", len(files)) as done,
    ):
        for inspected in pool.map(partial(_inspect, store), files):
            found.append(inspected)
            done(1)
    return pd.DataFrame(found, columns=["width", "height", "sha256", "problem"])


def _inspect(store: ImageStore, file: str) -> tuple[int, int, str, str]:
    """Width, height, SHA-256 of the bytes, and what is wrong."""
    try:
        data = store.read(file)
    except OSError:
        return 0, 0, "", "missing"
    try:
        image = decode(data)
    except UNDECODABLE:
        return 0, 0, "", "undecodable"
    return image.width, image.height, hashlib.sha256(data).hexdigest(), ""


def _findings(options: Dataset, layout: Layout, images: pd.DataFrame, captions: pd.DataFrame) -> list[Finding]:
    def files(rows: pd.Series[bool]) -> list[str]:
        return images.loc[rows, "file"].tolist()

    blank = images["file"].iloc[captions.loc[captions["blank"], "image"]].tolist()
    rule = layout.labels
    no_label = (images["label"] == "") & (not isinstance(rule, NoLabels))
    # Prefixes and published sets are known to leave some without; a file need not have the usual column.
    lax = isinstance(rule, PrefixLabels) or isinstance(options, KnownDataset)
    lax |= isinstance(options, FolderDataset) and options.labels is None and bool(no_label.all())
    findings = [
        Finding("captions hold no letter", "drop leaves them out", blank),
        Finding("images are missing", "drop leaves them out", files(images["problem"] == "missing")),
        Finding(
            "images cannot be decoded (broken, or not 8 bits a channel)",
            "drop leaves them out",
            files(images["problem"] == "undecodable"),
        ),
        Finding("images have no caption", "drop leaves them out", files(images["captions"] == 0)),
        Finding("images have no scene label", "kept without prompt", files(no_label), stops=not lax),
        Finding("images have the bytes of an image of another split", "kept", files(_leaks(images)), stops=False),
    ]
    lost = files(_bad(images) & (images["split"] == "test"))
    return [*findings, Finding("of these are test images", "recalls will not compare with the official split", lost)]


def _leaks(images: pd.DataFrame) -> pd.Series[bool]:
    splits = images.groupby("sha256")["split"].transform("nunique")
    return (images["sha256"] != "") & (splits > 1)


def _bad(images: pd.DataFrame) -> pd.Series[bool]:
    return (images["problem"] != "") | (images["captions"] == 0)


def _write(folder: Path, images: pd.DataFrame, captions: pd.DataFrame) -> None:
    kept = images[~_bad(images)].copy()
    for split in ("train", "test"):
        if split not in set(kept["split"]):
            raise UserError(f"no usable image is left in split {split!r}; check the dataset's `root` and `images`")
    kept["image_id"] = range(len(kept))
    texts = captions[~captions["blank"]].join(kept["image_id"], on="image", how="inner")
    texts = texts.astype({"image_id": "int64"})
    texts["caption_id"] = range(len(texts))
    columns = ["image_id", "file", "label", "split", "width", "height", "sha256"]
    write_frame(folder / "captions.csv", texts[["caption_id", "image_id", "caption"]])
    write_frame(folder / "images.csv", kept[columns])
