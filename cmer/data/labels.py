"""Scene labels of images, by the rule that a dataset's config names, as they are shown and put into prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cmer.config.datasets import ColumnLabels, FolderLabels, IdLabels, LabelRule, ListLabels, NoLabels, PrefixLabels
from cmer.data.annotations import Entry, plain, some
from cmer.errors import UserError
from cmer.io import read_text

COMPOUNDS = {
    word.replace(" ", ""): word
    for word in (
        "bare land", "baseball diamond", "baseball field", "dense residential", "golf course", "medium residential",
        "mobile home park", "parking lot", "railway station", "sparse residential", "storage tanks", "tennis court",
    )
}  # fmt: skip
"""Class names of RSICD, RSITMD and UCM-Captions that are two words or more written as one."""


def display_name(name: str) -> str:
    """The class as words: "storagetanks", "StorageTanks" and "storage_tanks" all become "storage tanks"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = " ".join(re.split(r"[\s_-]+", spaced.strip())).lower()
    return COMPOUNDS.get(words, words)


def labels_of(entries: Sequence[Entry], rule: LabelRule, root: Path) -> list[str]:
    """The display name of every image's class, "" where it has none.

    Args:
        entries: images of the annotation file.
        rule: how the dataset says what an image shows.
        root: folder relative to which the class lists lie.

    Raises:
        UserError: the class lists are missing, or one image stands in two of them.
    """
    find = _finder(rule, root)
    return [display_name(find(entry) or "") for entry in entries]


def known_labels(entries: Sequence[Entry], rule: LabelRule, root: Path) -> tuple[list[str], str]:
    """Labels of a published dataset, and a warning, "" if none: a copy may lack the class lists that its card names.

    Without the lists the file names' prefixes say what they can.
    """
    if isinstance(rule, ListLabels) and not _lists(root / rule.folder):
        labels = labels_of(entries, PrefixLabels(), root)
        return labels, f"no class lists in {root / rule.folder}: {labels.count(''):,} images have no scene label"
    return labels_of(entries, rule, root), ""


def merged(labels: Sequence[str], classes: Mapping[str, str]) -> list[str]:
    """Labels with some classes counted as others: `classes` says which as which, however the names are spelt."""
    others = {display_name(name): display_name(other) for name, other in classes.items()}
    return [others.get(label, label) for label in labels]


def _finder(rule: LabelRule, root: Path) -> Callable[[Entry], str | None]:
    match rule:
        case PrefixLabels():
            return _prefix
        case ListLabels():
            listed = _read_lists(root / rule.folder)

            def of_lists(entry: Entry) -> str | None:
                return listed.get(entry.filename) or _prefix(entry)

            return of_lists
        case IdLabels():
            return lambda entry: _by_id(entry, rule)
        case ColumnLabels():
            return lambda entry: _column(entry, rule.column)
        case FolderLabels():
            return _folder
        case NoLabels():
            return lambda entry: None


def _prefix(entry: Entry) -> str | None:
    head, underscore, _ = PurePosixPath(entry.filename).name.partition("_")
    return head if underscore else None


def _column(entry: Entry, column: str) -> str | None:
    value = (entry.model_extra or {}).get(column)
    if value is not None and type(value) not in (str, int):
        raise UserError(f"{entry.filename}: {column} is a {type(value).__name__}; give the name of one class")
    return None if value is None else plain(str(value))


def _folder(entry: Entry) -> str | None:
    parts = PurePosixPath(entry.filename).parts
    return parts[0] if len(parts) > 1 else None


def _by_id(entry: Entry, rule: IdLabels) -> str | None:
    stem = PurePosixPath(entry.filename).stem
    place = (int(stem) - 1) // rule.per_class if stem.isdecimal() and len(stem) < 10 else -1
    return rule.classes[place] if 0 <= place < len(rule.classes) else None


def _lists(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.txt"))


def _read_lists(folder: Path) -> dict[str, str]:
    """File name → class, of a folder with one `<class>.txt` a class that names one image a line."""
    lists = _lists(folder)
    if not lists:
        raise UserError(
            f"no class lists (<class>.txt) in {folder}; put them there (RSICD ships them as txtclasses_rsicd, an "
            "archive that bsdtar or unar unpacks), or set labels: {rule: prefix} and go without labels for bare numbers"
        )
    classes: dict[str, str] = {}
    twice = []
    for path in lists:
        for name in read_text(path).split():
            twice += [f"{name} ({classes[name]}, {path.stem})"] if name in classes else []
            classes[name] = path.stem
    if twice:
        raise UserError(f"the class lists in {folder} name some images twice: {some(twice)}; an image has one class")
    return classes
