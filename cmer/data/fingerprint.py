"""Comparison of a copy with the published dataset's fingerprint: images, captions, splits and classes."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cmer.data.annotations import Entry, abbreviate
from cmer.data.cards import Fingerprint
from cmer.data.similar import hashes_match

DIGITS = 8
"""Hex digits of a name's hash: enough for 10,000 names not to collide with a list of 1,000 other names."""


@dataclass(frozen=True)
class Match:
    """Result of one comparison.

    Attributes:
        what: the property compared, e.g. "images in train".
        known: its value in the published dataset.
        found: its value in this copy.
        names: images or classes that differ, each with the difference.
    """

    what: str
    known: str
    found: str
    names: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether this copy equals the published dataset in this property."""
        return self.known == self.found and not self.names

    def __str__(self) -> str:
        """One sentence: "names of the test images: 452 published, 442 here: pond_1.jpg is in train"."""
        names = f": {abbreviate(self.names)}" if self.names else ""
        return f"{self.what}: {self.known} published, {self.found} here{names}"


def fingerprint_of(entries: Sequence[Entry], labels: Sequence[str]) -> Fingerprint:
    """The fingerprint of a copy, computed from its annotations and its images' labels.

    Folders and suffixes of names are ignored, because copies differ in both; white space in captions is normalised.
    """
    splits = sorted({entry.split for entry in entries})
    of = {split: [entry for entry in entries if entry.split == split] for split in splits}
    return Fingerprint(
        images={split: len(of[split]) for split in splits},
        captions={split: sum(len(entry.sentences) for entry in of[split]) for split in splits},
        digests={split: _digest(of[split]) for split in splits},
        classes=dict(sorted(Counter(labels).items())),
        labels=_hexdigest(f"{_stem(entry)}\t{label}" for entry, label in zip(entries, labels, strict=True)),
        pictures={},
        names={split: "".join(sorted(_hash(entry) for entry in of[split])) for split in splits if split != "train"},
    )


def compare(known: Fingerprint, entries: Sequence[Entry], labels: Sequence[str]) -> list[Match]:
    """Compare a copy with everything in the fingerprint but the pictures; the last result is that of the classes.

    If the published dataset has no val split, the val images of a copy count as train: copies differ in this, and only
    their test split must be the same.
    """
    if "val" not in known.images:
        entries = [entry.model_copy(update={"split": "train"}) if entry.split == "val" else entry for entry in entries]
    found = fingerprint_of(entries, labels)
    splits = [split for split in ("train", "val", "test") if split in {*known.images, *found.images}]
    matches = [_count("images", known.images, found.images, split) for split in splits]
    matches += [_count("captions", known.captions, found.captions, split) for split in splits]
    hashes = [_hash(entry) for entry in entries]
    matches += [_names(known, entries, hashes, split) for split in sorted(known.names)]
    matches += [_captions(known, found, split) for split in splits]
    return [*matches, _classes(known, found)]


def differences(matches: Iterable[Match]) -> list[str]:
    """One sentence per property that differs."""
    return [str(match) for match in matches if not match.same]


def _stem(entry: Entry) -> str:
    return posixpath.splitext(posixpath.basename(entry.filename.replace("\\", "/")))[0]


def _hash(entry: Entry) -> str:
    return hashlib.sha256(_stem(entry).encode()).hexdigest()[:DIGITS]


def _digest(entries: Iterable[Entry]) -> str:
    return _hexdigest(f"{stem}\t{text}" for entry in entries for stem in [_stem(entry)] for text in entry.captions)


def _hexdigest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:32]


def _count(what: str, known: dict[str, int], found: dict[str, int], split: str) -> Match:
    return Match(f"{what} in {split}", f"{known.get(split, 0):,}", f"{found.get(split, 0):,}")


def _names(known: Fingerprint, entries: Sequence[Entry], hashes: Sequence[str], split: str) -> Match:
    """Images of a split that are in another split, images that do not belong to it, and the number of missing ones."""
    text = known.names[split]
    real = {text[i : i + DIGITS] for i in range(0, len(text), DIGITS)}
    found = list(zip(entries, hashes, strict=True))
    here = {name for entry, name in found if entry.split == split}
    lost, strange = real - here, here - real
    moved = [f"{entry.filename} is in {entry.split}" for entry, name in found if name in lost]
    added = [f"{entry.filename} does not belong to {split}" for entry, name in found if name in strange]
    nowhere = len(real - set(hashes))
    names = moved + added + ([f"{nowhere:,} are missing"] if nowhere else [])
    return Match(f"names of the {split} images", f"{len(real):,}", f"{len(here & real):,}", names)


def _captions(known: Fingerprint, found: Fingerprint, split: str) -> Match:
    return Match(f"text of the {split} captions", known.digests.get(split, ""), found.digests.get(split, ""))


def _classes(known: Fingerprint, found: Fingerprint) -> Match:
    names = [
        f"{name or 'without a class'}: {found.classes.get(name, 0):,} images, not {known.classes.get(name, 0):,}"
        for name in sorted({*known.classes, *found.classes})
        if found.classes.get(name, 0) != known.classes.get(name, 0)
    ]
    if not names and known.labels != found.labels:
        names = ["classes of the published sizes, but with other images"]
    classes = [f"{len(set(counts) - {''}):,} classes" for counts in (known.classes, found.classes)]
    return Match("classes and their images", classes[0], classes[1], names)


def sample_hashes(entries: Sequence[Entry], hashes: Sequence[str]) -> dict[str, str]:
    """Perceptual hashes of a sample of about 500 images, evenly spaced in the order of their hashed names."""
    named = sorted(zip(map(_hash, entries), hashes, strict=True))
    return dict(named[:: len(named) // 500 or 1])


def compare_pictures(known: Fingerprint, entries: Sequence[Entry], hashes: Sequence[str]) -> Match:
    """Check that the images of the sample show what they should, even if they were re-encoded or resized.

    Missing or broken images, whose hash is "", are skipped.
    """
    owned = [(entry, own) for entry, own in zip(entries, hashes, strict=True) if own]
    there = [(entry, known.pictures[_hash(entry)], own) for entry, own in owned if _hash(entry) in known.pictures]
    others = [entry.filename for entry, real, own in there if not hashes_match(real, own)]
    return Match("pictures, of a sample", f"{len(there):,}", f"{len(there) - len(others):,}", others)
