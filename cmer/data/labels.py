"""Scene labels of images, found by the label rule in the dataset's settings, as displayed and used in prompts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import category, normalize

from cmer.config.datasets import ColumnLabels, FolderLabels, IdLabels, LabelRule, ListLabels, NoLabels, PrefixLabels
from cmer.data.annotations import Entry, abbreviate, normalise_whitespace
from cmer.errors import UserError
from cmer.io import read_text

COMPOUNDS = {
    word.replace(" ", ""): word
    for word in (
        "bare land", "baseball diamond", "baseball field", "dense residential", "golf course", "medium residential",
        "mobile home park", "parking lot", "railway station", "sparse residential", "storage tanks", "tennis court",
    )
}  # fmt: skip
"""Class names of RSICD, RSITMD and UCM-Captions that consist of several words written as one."""


def display_name(name: str) -> str:
    """The class as words: "storagetanks", "StorageTanks" and "storage_tanks" all become "storage tanks".

    All of Unicode's dashes separate words, and its format characters, which cannot be seen, are removed. A name without
    a letter or digit is "", as of an image without a class.
    """
    visible = "".join(" " if category(sign) == "Pd" else sign for sign in name if category(sign) != "Cf")
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", visible)
    words = " ".join(re.split(r"[\s_]+", spaced)).strip().lower()
    return COMPOUNDS.get(words, words) if any(map(str.isalnum, words)) else ""


def labels_of(entries: Sequence[Entry], rule: LabelRule, root: Path) -> list[str]:
    """The display name of every image's class, "" for images without a class.

    Args:
        entries: images of the annotation file.
        rule: where the labels come from.
        root: folder that contains the folder of the class lists.

    Raises:
        UserError: the class lists are missing, or an image is in two of them.
    """
    find = _finder(rule, root)
    return [display_name(find(entry) or "") for entry in entries]


def known_labels(entries: Sequence[Entry], rule: LabelRule, root: Path) -> tuple[list[str], str]:
    """Labels of a published dataset, and a warning if the copy lacks the class lists that its card names, else "".

    Without the lists, labels come from file-name prefixes where there are any.
    """
    if isinstance(rule, ListLabels) and not _lists(root / rule.folder):
        labels = labels_of(entries, PrefixLabels(), root)
        return labels, f"no class lists in {root / rule.folder}: {labels.count(''):,} images have no scene label"
    return labels_of(entries, rule, root), ""


def merged(labels: Sequence[str], classes: Mapping[str, str]) -> list[str]:
    """Labels with classes replaced as `classes` says, whatever the spelling of the names."""
    others = {display_name(name): display_name(other) for name, other in classes.items()}
    return [others.get(label, label) for label in labels]


def require_classes(labels: Sequence[str], classes: Mapping[str, str], setting: str) -> None:
    """Check that every class to merge exists, and that afterwards no class exists in two spellings.

    Args:
        labels: labels of all images before merging.
        classes: class → class that replaces it.
        setting: config key of `classes`.

    Raises:
        UserError: a class does not exist, is merged twice or into one that is merged itself, or is spelled in two ways.
    """
    known = Counter(map(display_name, classes))
    if twice := [name for name in classes if known[display_name(name)] > 1]:
        raise UserError(f"{setting}: {' and '.join(map(repr, twice))} are the same class; merge it once")
    others = {display_name(name): display_name(other) for name, other in classes.items()}
    if unknown := [name for name in classes if display_name(name) not in labels]:
        found = ", ".join(sorted(set(labels) - {""})) or "none"
        raise UserError(f"{setting}: no image has the class {', '.join(unknown)}; classes are {found}")
    if chained := [name for name, other in others.items() if other in others]:
        name, other = chained[0], others[chained[0]]
        rest = f"{other}, which is merged into {others[other]}" if other != name else "itself"
        raise UserError(f"{setting}: {name} is merged into {rest}")
    spellings: dict[str, str] = {}
    for label in dict.fromkeys(merged(labels, classes)):
        first = spellings.setdefault(normalize("NFKC", label).casefold().replace(" ", ""), label)
        if first != label:
            raise UserError(
                f"two classes are called {first!r} and {label!r}; if they are one, set {setting}: "
                f'{{"{label}": "{first}"}}, otherwise rename one of them'
            )


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
    return None if value is None else normalise_whitespace(str(value))


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
    """File name → class, from a folder with one `<class>.txt` per class that lists one image per line."""
    lists = _lists(folder)
    if not lists:
        raise UserError(
            f"no class lists (<class>.txt) in {folder}; put them there (RSICD ships them as txtclasses_rsicd, an "
            "archive that bsdtar or unar unpacks), or set labels: {rule: prefix}, which gives numeric names no label"
        )
    classes: dict[str, str] = {}
    twice = []
    for path in lists:
        for name in read_text(path).split():
            twice += [f"{name} ({classes[name]}, {path.stem})"] if name in classes else []
            classes[name] = path.stem
    if twice:
        raise UserError(
            f"the class lists in {folder} list some images twice: {abbreviate(twice)}; assign one class to each image"
        )
    return classes
