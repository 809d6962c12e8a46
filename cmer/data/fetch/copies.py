"""Conversion of a copy of a published dataset, in a folder or an archive, to images.tar and dataset.json."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cmer.config.datasets import ListLabels
from cmer.data.annotations import Entry, abbreviate, read_annotations
from cmer.data.cards import Card, fingerprint
from cmer.data.fetch.archives import GIB, MAX_BYTES, Member, SourceError, open_archive
from cmer.data.fingerprint import compare, differences
from cmer.data.labels import known_labels
from cmer.errors import UserError
from cmer.io import atomic, write_json
from cmer.progress import progress


def pack(path: Path, name: str, known: Card, folder: Path | str) -> list[str]:
    """Write images.tar and dataset.json into `folder`; the same content gives the same bytes.

    Args:
        path: folder or archive with a copy of the dataset, possibly beside other datasets; only files below the folder
            of the annotation file are read.
        name: name of the dataset, as in its fingerprint and in dataset.json.
        known: the dataset's card, with the annotation file and label rule of the copy.
        folder: output folder.

    Returns:
        warnings about what is missing from the copy.

    Raises:
        SourceError: the copy has another layout, is not the published dataset, is incomplete, or is not safe to read.
        UserError: the folder cannot be written.
    """
    with open_archive(path) as members:
        annotations = _only(path, members, known.annotations)
        below = [member for member in members if member.path.is_relative_to(annotations.path.parent)]
        files, faults = _by_name(below)
        lists = [member for member in files.values() if _is_list(member, known)]
        entries, labels, warnings = _annotated(annotations, lists, known)
        *matches, _classes = compare(fingerprint(name), entries, labels)
        if found := differences(matches):
            raise SourceError(f"it is not {known.title} as its authors published it ({'; '.join(found)})")
        sizes = _sizes(files, faults, [entry.filename for entry in entries])
        images = [_written(entry, label) for entry, label in zip(entries, labels, strict=True)]
        with atomic(Path(folder) / "images.tar") as tar, atomic(Path(folder) / "dataset.json") as described:
            _write_tar(tar, sizes, files)
            write_json(described, {"dataset": name, "images": images})
    return warnings


def _only(path: Path, members: Sequence[Member], name: str) -> Member:
    """The only member called `name`, in any folder."""
    files, faults = _by_name([member for member in members if member.path.name == name])
    if name not in files:
        raise SourceError(f"{name} {faults.get(name, 'is not')} in {path}")
    return files[name]


def _by_name(members: Iterable[Member]) -> tuple[dict[str, Member], dict[str, str]]:
    """Usable members by file name without folders, and for unusable ones the reason by file name.

    A reason matters only if the annotations name the file.
    """
    files: dict[str, Member] = {}
    faults: dict[str, str] = {}
    for member in members:
        name = member.path.name
        if name in files:
            faults[name] = f"occurs twice, as {files[name].name} and {member.name},"
        elif member.fault:
            faults[name] = member.fault
        files.setdefault(name, member)
    return {name: member for name, member in files.items() if name not in faults}, faults


def _is_list(member: Member, known: Card) -> bool:
    rule, path = known.labels, member.path
    return isinstance(rule, ListLabels) and path.parent.name == rule.folder and path.suffix == ".txt"


def _annotated(annotations: Member, lists: list[Member], known: Card) -> tuple[list[Entry], list[str], list[str]]:
    """The annotated images, their labels, and warnings about the labels."""
    with tempfile.TemporaryDirectory() as root:
        try:
            for member in (annotations, *lists):
                file = Path(root) / (f"{member.path.parent.name}/" * (member in lists)) / member.path.name
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(member.read())
            entries = [_flat(entry) for entry in read_annotations(Path(root) / known.annotations)]
            labels, warning = known_labels(entries, known.labels, Path(root))
        except (UserError, ValueError) as error:  # ValueError: a list has a name that is not a valid file name here
            raise SourceError(str(error).replace(f"{root}/", "")) from None
    return entries, labels, [f"{warning}. {known.by_hand}".replace(f"{root}/", "")] if warning else []


def _flat(entry: Entry) -> Entry:
    return entry.model_copy(update={"filename": PurePosixPath(entry.filename).name})


def _sizes(files: Mapping[str, Member], faults: Mapping[str, str], names: list[str]) -> dict[str, int]:
    """Declared size of every annotated image, in the annotations' order."""
    if len(set(names)) < len(names):
        raise SourceError("its annotations name two images that differ only in their folders")
    if faulty := [f"{name} {faults[name]}" for name in names if name in faults]:
        raise SourceError(abbreviate(faulty))
    sizes = {name: files[name].size for name in names if name in files}
    if missing := [name for name in names if not sizes.get(name)]:
        counts = f"{len(missing):,} of the {len(names):,} annotated images"
        raise SourceError(f"{counts} are missing or empty: {abbreviate(missing)}")
    if (total := sum(sizes.values())) > MAX_BYTES:
        raise SourceError(f"its images have {total / GIB:.0f} GiB; the limit is {MAX_BYTES / GIB:.0f} GiB")
    return sizes


def _written(entry: Entry, label: str) -> dict[str, object]:
    sentences = [{"raw": caption} for caption in entry.captions]
    scene = {"label": label} if label else {}
    return {"filename": entry.filename, "split": entry.split, "sentences": sentences, **scene}


def _write_tar(path: Path, sizes: Mapping[str, int], files: Mapping[str, Member]) -> None:
    """Write the images in the order of `sizes`, but read them in archive order: compressed tars cannot seek back."""
    places = {}
    with path.open("wb") as tar, progress("Packing the images", len(sizes)) as done:
        for name, size in sizes.items():
            header = tarfile.TarInfo(name)
            header.size = size
            tar.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8"))
            places[name] = tar.tell()
            tar.seek(_rounded(size, tarfile.BLOCKSIZE), os.SEEK_CUR)
        tar.truncate(_rounded(tar.tell() + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE))
        for name in (name for name in files if name in sizes):
            data = files[name].read()
            if len(data) != sizes[name]:
                raise SourceError(f"{name} has {len(data):,} bytes, but {sizes[name]:,} are declared")
            tar.seek(places[name])
            tar.write(data)
            done(1)


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
