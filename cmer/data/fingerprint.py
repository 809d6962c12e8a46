"""Is this copy of a published dataset the real one? Images, captions, splits and classes against its fingerprint."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cmer.data.annotations import Entry, some
from cmer.data.cards import Fingerprint
from cmer.data.similar import alike

DIGITS = 8
"""Hex digits kept of a name's hash: enough to tell 10,000 names apart from a list of 1,000 that they are not on."""


@dataclass(frozen=True)
class Match:
    """One thing compared.

    Attributes:
        what: "images in train".
        known: what the authors' copy has.
        found: what this copy has.
        names: images or classes that differ, each with what is wrong.
    """

    what: str
    known: str
    found: str
    names: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether this copy has what the authors' has."""
        return self.known == self.found and not self.names

    def __str__(self) -> str:
        """One sentence: "names of the test images: 452 there, 442 here: pond_1.jpg is in train"."""
        names = f": {some(self.names)}" if self.names else ""
        return f"{self.what}: {self.known} there, {self.found} here{names}"


def take(entries: Sequence[Entry], labels: Sequence[str]) -> Fingerprint:
    """The fingerprint of a copy, from its annotations and its images' labels.

    A name counts without folder and suffix, for copies differ in both; a caption counts with its white space collapsed.
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
    """Everything that a fingerprint holds, against a copy; the last match is that of the classes.

    Where the published dataset has no val, one that a copy sets apart counts as train: copies differ there, and only
    test must be the same.
    """
    if "val" not in known.images:
        entries = [entry.model_copy(update={"split": "train"}) if entry.split == "val" else entry for entry in entries]
    found = take(entries, labels)
    splits = [split for split in ("train", "val", "test") if split in {*known.images, *found.images}]
    matches = [_count("images", known.images, found.images, split) for split in splits]
    matches += [_count("captions", known.captions, found.captions, split) for split in splits]
    hashes = [_hash(entry) for entry in entries]
    matches += [_names(known, entries, hashes, split) for split in sorted(known.names)]
    matches += [_captions(known, found, split) for split in splits]
    return [*matches, _classes(known, found)]


def differences(matches: Iterable[Match]) -> list[str]:
    """A sentence for each thing that differs."""
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
    """Which images of a split lie in another one, which do not belong to it, and how many are nowhere."""
    text = known.names[split]
    real = {text[i : i + DIGITS] for i in range(0, len(text), DIGITS)}
    found = list(zip(entries, hashes, strict=True))
    here = {name for entry, name in found if entry.split == split}
    lost, strange = real - here, here - real
    moved = [f"{entry.filename} is in {entry.split}" for entry, name in found if name in lost]
    added = [f"{entry.filename} does not belong to {split}" for entry, name in found if name in strange]
    nowhere = len(real - set(hashes))
    names = moved + added + ([f"{nowhere:,} are nowhere"] if nowhere else [])
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
        names = ["of their published sizes, but with other images in them"]
    classes = [f"{len(set(counts) - {''}):,} classes" for counts in (known.classes, found.classes)]
    return Match("classes and their images", classes[0], classes[1], names)


def sample(entries: Sequence[Entry], hashes: Sequence[str]) -> dict[str, str]:
    """The perceptual hashes of every twentieth image by name, which stand for all: `Fingerprint.pictures`."""
    named = sorted(zip(map(_hash, entries), hashes, strict=True))
    return dict(named[:: len(named) // 500 or 1])


def pictures(known: Fingerprint, entries: Sequence[Entry], hashes: Sequence[str]) -> Match:
    """Whether the images of the sample show what they should, re-encoded or resized as they may be.

    An image that is missing or broken, with the hash "", is not looked at.
    """
    owned = [(entry, own) for entry, own in zip(entries, hashes, strict=True) if own]
    there = [(entry, known.pictures[_hash(entry)], own) for entry, own in owned if _hash(entry) in known.pictures]
    others = [entry.filename for entry, real, own in there if not alike(real, own)]
    return Match("pictures, of a sample", f"{len(there):,}", f"{len(there) - len(others):,}", others)
