"""Preparation: check annotations and images, and write images.csv and captions.csv, which all later steps read."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cmer.config.datasets import Dataset, FolderDataset, NoLabels, PrefixLabels, PublishedDataset
from cmer.data.annotations import Entry, abbreviate, files_below, is_image, read_entries
from cmer.data.cards import card, fingerprint
from cmer.data.fingerprint import Match, compare, compare_pictures, differences
from cmer.data.frames import write_frame
from cmer.data.groups import LINKED, image_groups, kept_together
from cmer.data.images import ImageStore, open_images
from cmer.data.labels import known_labels, labels_of, merged, require_classes
from cmer.data.layout import Layout, layout_of
from cmer.data.raster import UndecodableError, shows_nothing
from cmer.data.similar import image_hash
from cmer.data.splits import drawn_splits
from cmer.errors import UserError
from cmer.io import atomic, process_pool, resolved
from cmer.progress import progress

WRITTEN = ("captions.csv", "hashes.csv", "images.csv")


@dataclass(frozen=True)
class Finding:
    """One kind of flaw: a description, what happens to it, and the images (or images of captions) that have it."""

    what: str
    remedy: str
    files: list[str]
    stops: bool = True

    def __str__(self) -> str:
        """One sentence with the count and up to ten names."""
        return f"{len(self.files):,} {self.what}; {self.remedy}: {abbreviate(self.files)}"


def prepare(options: Dataset, folder: Path | str) -> list[Finding]:
    """Check every caption, decode every image once, and write images.csv, captions.csv and hashes.csv into `folder`.

    A caption is blank if it contains no letter of any script; digits, punctuation and emoji are not letters. RSICD has
    five blank captions (" ." and "1 ."), none of them in test. Missing labels are flaws, except under the rule
    `prefix`, because RSICD's 921 numeric names are known to have none. With `on_bad: drop`, blank captions, bad images
    and images without remaining captions are dropped; images without a label are kept.

    Returns:
        flaws that were dropped, and findings that are only warnings.

    Raises:
        UserError: the dataset cannot be read, its annotation file is one of the files to write, most of its images are
            of a single colour, `merge` does not fit its classes, or it has flaws and `on_bad` is `stop`; the message
            lists them.
    """
    folder = Path(folder)
    layout = layout_of(options, folder)
    if resolved(layout.annotations) in [resolved(folder / name) for name in WRITTEN]:
        raise UserError(f"{layout.annotations} would be overwritten; move the dataset, or choose another folder")
    entries = read_entries(layout)
    labels, findings = _labels(options, layout, entries)
    require_classes(labels, options.merge, f"datasets.{folder.name}.merge")
    images, captions = _read(options, layout, folder, entries, labels)
    if isinstance(options, PublishedDataset):
        shown = compare_pictures(fingerprint(options.source), entries, images["hash"].tolist())
        _stop_unless_published(options, layout, [shown])
    _stop_if_plain(options, f"datasets.{folder.name}", images)
    findings += _findings(options, layout, images, captions) + _notes(layout, entries, images)
    findings = [finding for finding in findings if finding.files]
    flaws = [finding for finding in findings if finding.stops]
    if flaws and options.on_bad == "stop":
        report = "\n".join(f"  - {flaw}" for flaw in flaws)
        switch = f"datasets.{folder.name}.on_bad"
        fetched = layout.images is None and isinstance(options, PublishedDataset)
        remedy = "Fetch another copy (put it first in `sources`, --forcerun fetch_data)" if fetched else "Correct them"
        raise UserError(f"{options.title} has flaws:\n{report}\n{remedy}, or set {switch}: drop to skip them.")
    _write(folder, images, captions)
    return findings


def _labels(options: Dataset, layout: Layout, entries: list[Entry]) -> tuple[list[str], list[Finding]]:
    """Labels of the images, after verifying the annotations of a published dataset."""
    if not isinstance(options, PublishedDataset):
        return labels_of(entries, layout.labels, layout.root), []
    labels, warning = known_labels(entries, layout.labels, layout.root)
    *matches, classes = compare(fingerprint(options.source), entries, labels)
    _stop_unless_published(options, layout, matches)
    remedy = "kept" if not warning else f"{warning}; {card(options.source).by_hand}"
    return labels, [Finding("classes differ from the published ones", remedy, classes.names, stops=False)]


def _stop_unless_published(options: PublishedDataset, layout: Layout, matches: list[Match]) -> None:
    if found := differences(matches):
        report = "\n".join(f"  - {difference}" for difference in found)
        raise UserError(
            f"{layout.annotations} is not {options.title} as its authors published it:\n{report}\n"
            "Get another copy, or use this one as a dataset of your own (source: folder)."
        )


def _stop_if_plain(options: Dataset, setting: str, images: pd.DataFrame) -> None:
    plain, decoded = images.loc[images["plain"], "file"].tolist(), int((images["problem"] == "").sum())
    if 2 * len(plain) > decoded:
        rendered = isinstance(options, FolderDataset) and options.raster is not None
        nearly = f"or nearly, or black and white only; correct {setting}.raster (bands, low, high)"
        remedy = nearly if rendered else "so that nothing can be learned from them; give images that show something"
        raise UserError(
            f"{len(plain):,} of {decoded:,} images of {options.title} are of a single colour, {remedy}: "
            f"{abbreviate(plain)}"
        )


def _read(
    options: Dataset, layout: Layout, folder: Path, entries: list[Entry], labels: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All images, with the columns `problem`, `reason` and `group`, and all captions, before any are dropped."""
    files = [entry.filename for entry in entries]
    images = inspect_images(open_images(options, folder), files, options.title)
    images["file"] = files
    images["label"] = merged(labels, options.merge)
    texts = [entry.captions for entry in entries]
    if layout.caption is not None:
        texts = [[layout.caption.replace("{label}", label)] if label else [] for label in images["label"]]
    rows = [(number, caption) for number, captions in enumerate(texts) for caption in captions]
    captions = pd.DataFrame(rows, columns=["image", "caption"])
    blank = [not any(letter.isalpha() for letter in caption) for caption in captions["caption"]]
    captions["blank"] = pd.Series(blank, dtype=bool)
    images["captions"] = (~captions["blank"]).groupby(captions["image"]).sum().reindex(images.index, fill_value=0)
    images["split"], images["group"] = [entry.split for entry in entries], images.index
    if layout.split is not None and not any(images["split"]):
        images["group"] = image_groups(images, captions[~captions["blank"]].set_index("image")["caption"])
        own, groups = images["label"].tolist(), images["group"].tolist()
        images["split"] = drawn_splits(files, own, groups, layout.split)
    return images, captions


def inspect_images(store: ImageStore, files: list[str], title: str) -> pd.DataFrame:
    """Decode images once.

    Returns:
        a table with width, height, sha256, hash, `plain` (whether the image is of a single colour, or a raster that
        shows nothing), `problem` ("", missing, undecodable) and `reason` of each.
    """
    found = []
    with (
        process_pool() as pool,  # threads would block each other half of the time
        progress(f"Checking the images of {title}", len(files)) as done,
    ):
        try:
            for inspected in pool.map(partial(_inspect, store), files, chunksize=32):
                found.append(inspected)
                done(1)
        except BrokenProcessPool:
            near = abbreviate(files[len(found) : len(found) + 64], limit=3)
            raise UserError(
                f"a process that checked the images of {title} was killed, possibly for lack of memory, near {near}; "
                "cut very large images into tiles, or give this step more memory"
            ) from None
    return pd.DataFrame(found, columns=["width", "height", "sha256", "hash", "plain", "problem", "reason"])


def _inspect(store: ImageStore, file: str) -> tuple[int, int, str, str, bool, str, str]:
    """Width, height, SHA-256 of the bytes, perceptual hash, whether of a single colour, problem and reason."""
    try:
        data = store.read(file)
        image = store.decode(data)
    except FileNotFoundError:
        return 0, 0, "", "", False, "missing", ""
    except OSError as error:
        return 0, 0, "", "", False, "undecodable", error.strerror or str(error)
    except UndecodableError as error:
        return 0, 0, "", "", False, "undecodable", str(error)
    found = image_hash(image)
    plain = not int(found, 16) and image.getcolors(1) is not None  # the first is quick, the second exact
    plain |= "rendered" in image.info and shows_nothing(image)
    return image.width, image.height, hashlib.sha256(data).hexdigest(), found, plain, "", ""


def _findings(options: Dataset, layout: Layout, images: pd.DataFrame, captions: pd.DataFrame) -> list[Finding]:
    def files(rows: pd.Series[bool]) -> list[str]:
        return images.loc[rows, "file"].tolist()

    blank = images["file"].iloc[captions.loc[captions["blank"], "image"]].tolist()
    broken = images[images["problem"] == "undecodable"]
    undecodable = [f"{file} ({reason})" for file, reason in zip(broken["file"], broken["reason"], strict=True)]
    rule = layout.labels
    no_label = (images["label"] == "") & (not isinstance(rule, NoLabels))
    # Prefixes and published datasets do not label every image, and annotation files may lack the default column.
    lax = isinstance(rule, PrefixLabels) or isinstance(options, PublishedDataset)
    lax |= isinstance(options, FolderDataset) and options.labels is None and bool(no_label.all())
    findings = [
        Finding("captions contain no letter", "`drop` skips them", blank),
        Finding("images are missing", "`drop` skips them", files(images["problem"] == "missing")),
        Finding("images cannot be decoded", "`drop` skips them", undecodable),
        Finding("images have no caption", "`drop` skips them", files(images["captions"] == 0)),
        Finding("images have no scene label", "kept without prompt", files(no_label), stops=not lax),
        Finding("images are of a single colour", "kept", files(images["plain"]), stops=False),
        Finding("images are identical to an image of another split", "kept", files(_leaks(images)), stops=False),
    ]
    lost = files(_bad(images) & (images["split"] == "test"))
    remedy = "without them, recalls are not comparable with the official split"
    return [*findings, Finding("of these are test images", remedy, lost)]


def _notes(layout: Layout, entries: list[Entry], images: pd.DataFrame) -> list[Finding]:
    """Warnings, not flaws: images that were split at random or kept together, files that do not count as images."""
    drawn = [entry.filename for entry in entries if not entry.split]
    sizes = Counter(images["split"])
    shares = ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "val", "test"))
    linked, together = kept_together(images["group"], images["split"])
    others = [] if layout.caption is None else [name for name in files_below(layout.annotations) if not is_image(name)]
    return [
        Finding("images name no split", f"split at random: {shares}", drawn, stops=False),
        Finding(LINKED, together, images.loc[linked, "file"].tolist(), stops=False),
        Finding("files do not have the name of an image", "skipped", others, stops=False),
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
                f"no usable image is left in split {split!r} ({len(images):,} images were found in total); check the "
                "dataset's `root` and `images`"
            )
    kept["image_id"] = range(len(kept))
    texts = captions[~captions["blank"]].join(kept["image_id"], on="image", how="inner")
    texts = texts.astype({"image_id": "int64"})
    texts["caption_id"] = range(len(texts))
    columns = ["image_id", "file", "label", "split", "width", "height", "sha256"]
    captioned, hashed = texts[["caption_id", "image_id", "caption"]], kept[["image_id", "sha256", "hash"]]
    frames = dict(zip(WRITTEN, (captioned, hashed, kept[columns]), strict=True))
    with ExitStack() as stack:  # the three files belong together: write all of them before replacing any
        places = {name: stack.enter_context(atomic(folder / name)) for name in frames}
        for name, frame in frames.items():
            write_frame(places[name], frame)
