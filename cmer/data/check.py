"""Comparison of a copy with the published dataset, including its image files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cmer.config.base import validate
from cmer.config.datasets import PublishedDataset
from cmer.data.annotations import Entry, abbreviate, read_annotations
from cmer.data.cards import card, fingerprint
from cmer.data.fingerprint import Match, compare, compare_pictures
from cmer.data.images import open_images
from cmer.data.labels import known_labels
from cmer.data.layout import layout_of
from cmer.data.prepare import inspect_images
from cmer.errors import UserError
from cmer.progress import console


def check_copy(name: str, root: Path, annotations_only: bool) -> list[Match]:
    """Compare a copy with the card and the fingerprint of the dataset.

    Args:
        name: name of the dataset, e.g. "rsicd".
        root: folder of the copy, in its authors' layout or as written by `cmer fetch`.
        annotations_only: do not open the images.

    Raises:
        UserError: there is no copy in `root`, or its annotation file cannot be read.
    """
    options = _options(name, root)
    layout = layout_of(options, root)
    entries = read_annotations(layout.annotations)
    labels, _ = known_labels(entries, layout.labels, layout.root)
    matches = compare(fingerprint(name), entries, labels)
    if annotations_only:
        return matches
    if layout.images is not None and not layout.images.is_dir():
        lost = f"{layout.images} does not exist (--annotations-only skips the images)"
        return [*matches, Match("image files", f"{len(entries):,}", "0", [lost])]
    return [*matches, *_images(options, root, entries)]


def _options(name: str, root: Path) -> PublishedDataset:
    fetched = (root / "dataset.json").is_file() and (root / "images.tar").is_file()
    if not fetched and not (root / card(name).annotations).is_file():
        raise UserError(
            f"{root} contains neither {card(name).annotations} nor a fetched copy; give --root a folder that does"
        )
    return validate(PublishedDataset, {"source": name} if fetched else {"source": name, "root": str(root)}, name)


def _images(options: PublishedDataset, root: Path, entries: list[Entry]) -> list[Match]:
    files = [entry.filename for entry in entries]
    found = inspect_images(open_images(options, root), files, options.title)
    missing = [file for file, kind in zip(files, found["problem"], strict=True) if kind == "missing"]
    broken = [file for file, kind in zip(files, found["problem"], strict=True) if kind == "undecodable"]
    sizes = Counter(f"{row.width} x {row.height}" for row in found[found["problem"] == ""].itertuples())
    (usual, _) = sizes.most_common(1)[0] if sizes else ("none", 0)
    side = card(options.source).size
    there = f"{len(files) - len(missing):,}"
    matches = [
        Match("image files", f"{len(files):,}", there, [f"{name} is missing" for name in missing]),
        Match("broken image files", "0", f"{len(broken):,}", broken),
        Match("usual size, pixels", f"{side} x {side}", usual),
    ]
    known = fingerprint(options.source)
    return [*matches, compare_pictures(known, entries, found["hash"].tolist())] if known.pictures else matches


def show(name: str, root: Path, matches: list[Match], annotations_only: bool) -> None:
    """Print a dataset's card, followed by the comparisons and the names of what differs."""
    known, terminal = card(name), console()
    facts = Table.grid(padding=(0, 2))
    for title in ("about", "splits", "licence", "citation"):
        facts.add_row(title, getattr(known, title))
    for number, flaw in enumerate(known.flaws):
        facts.add_row("" if number else "flaws", f"- {flaw}")
    terminal.print(Panel(facts, title=Text(known.title), title_align="left"))
    table = Table("", "what", "as published", str(root), box=box.SIMPLE_HEAD)
    for match in matches:
        verdict = Text("same", "green") if match.same else Text("differs", "red")
        table.add_row(verdict, match.what, match.known[:14], match.found[:14])  # digests are truncated
    terminal.print(table)
    for match in matches:
        if match.names:
            terminal.print(f"{match.what}: {abbreviate(match.names, limit=20)}", highlight=False)
    differ = sum(not match.same for match in matches)
    left = "the images were not opened" if annotations_only else "the fingerprint has no images to compare them with"
    whole = fingerprint(name).pictures and not annotations_only
    what = f"This is {known.title}." if whole else f"These are the annotations of {known.title}; {left}."
    terminal.print(f"{differ} of {len(matches)} differ." if differ else what)
