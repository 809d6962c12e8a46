"""A copy of a published dataset, wherever it lies, and how it becomes images.tar and dataset.json."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cmer.config.datasets import LabelRule, ListLabels
from cmer.data.annotations import Entry, read_annotations, some
from cmer.data.cards import card, fingerprint
from cmer.data.fingerprint import compare, differences
from cmer.data.labels import known_labels
from cmer.errors import UserError
from cmer.io import atomic, write_json
from cmer.progress import progress

GIB = 2**30
MOST_BYTES = 32 * GIB
"""Of all files of a copy. The largest known archive holds 5 GB."""
MOST_BYTES_OF_FILE = GIB // 4
"""Of one file, image or annotations; it is read whole into memory."""


class SourceError(UserError):
    """A source does not give the dataset; the message says why, and the next source is tried."""


@dataclass(frozen=True)
class Copy:
    """A copy of a dataset in the published layout.

    Attributes:
        annotations: the annotation file.
        labels: where its scene labels come from.
        lists: its class lists by file name; empty where it has none.
        sizes: of every other file, by name without folders, in bytes, as declared.
        faults: files that cannot be used, by name without folders, and why; an error only where they are annotated.
        read: gives the named ones of `sizes`, in any order.
    """

    annotations: bytes
    labels: LabelRule
    lists: Mapping[str, bytes]
    sizes: Mapping[str, int]
    faults: Mapping[str, str]
    read: Callable[[Collection[str]], Iterable[tuple[str, bytes]]]


def pack(copy: Copy, name: str, folder: Path | str) -> list[str]:
    """Write images.tar and dataset.json into `folder`; the same content gives the same bytes.

    Args:
        copy: of the dataset.
        name: of its card.
        folder: of the dataset.

    Returns:
        what the copy lacks.

    Raises:
        SourceError: the copy is not in the layout, is not the published dataset, is not whole, or is not safe to read.
        UserError: the folder cannot be written.
    """
    entries, labels, warnings = _annotated(copy, name)
    sizes = _sizes(copy, [entry.filename for entry in entries])
    images = [_written(entry, label) for entry, label in zip(entries, labels, strict=True)]
    with atomic(Path(folder) / "images.tar") as tar, atomic(Path(folder) / "dataset.json") as annotations:
        _write_tar(tar, sizes, copy.read(sizes))
        write_json(annotations, {"dataset": name, "images": images})
    return warnings


def _annotated(copy: Copy, name: str) -> tuple[list[Entry], list[str], list[str]]:
    """The annotated images, their labels, and what is amiss with these."""
    known = card(name)
    with tempfile.TemporaryDirectory() as root:
        try:
            _lay_out(copy, Path(root) / known.annotations)
            entries = [_flat(entry) for entry in read_annotations(Path(root) / known.annotations)]
            labels, warning = known_labels(entries, copy.labels, Path(root))
        except (UserError, ValueError) as error:  # ValueError: a list whose name is none here
            raise SourceError(str(error).replace(f"{root}/", "")) from None
        warning = warning.replace(f"{root}/", "")
    *matches, _classes = compare(fingerprint(name), entries, labels)
    if found := differences(matches):
        raise SourceError(f"it is not {known.title} as its authors published it ({'; '.join(found)})")
    return entries, labels, [f"{warning}. {known.by_hand}"] if warning else []


def _lay_out(copy: Copy, annotations: Path) -> None:
    annotations.write_bytes(copy.annotations)
    if isinstance(copy.labels, ListLabels):
        folder = annotations.with_name(copy.labels.folder)
        folder.mkdir()
        for file, data in copy.lists.items():
            (folder / file).write_bytes(data)


def _flat(entry: Entry) -> Entry:
    return entry.model_copy(update={"filename": PurePosixPath(entry.filename).name})


def _sizes(copy: Copy, files: list[str]) -> dict[str, int]:
    """Size by name of the annotated files that the copy has, in the annotations' order."""
    if len(set(files)) < len(files):
        raise SourceError("its annotations name two images alike but for their folders")
    faulty = [f"{file} {copy.faults[file]}" for file in files if file in copy.faults]
    if faulty:
        raise SourceError(some(faulty))
    sizes = {file: copy.sizes[file] for file in files if file in copy.sizes}
    missing = [file for file in files if not sizes.get(file)]
    if missing:
        raise SourceError(
            f"{len(missing):,} of the {len(files):,} annotated images are missing or empty: {some(missing)}"
        )
    if sum(sizes.values()) > MOST_BYTES:
        raise SourceError(
            f"its images have {sum(sizes.values()) / GIB:.0f} GiB; at most {MOST_BYTES / GIB:.0f} are read"
        )
    return sizes


def _written(entry: Entry, label: str) -> dict[str, object]:
    sentences = [{"raw": caption} for caption in entry.captions]
    scene = {"label": label} if label else {}
    return {"filename": entry.filename, "split": entry.split, "sentences": sentences, **scene}


def _write_tar(path: Path, sizes: Mapping[str, int], images: Iterable[tuple[str, bytes]]) -> None:
    """Write the images in the order of `sizes`, in whatever order they come: each goes to its place in the file."""
    places = {}
    with path.open("wb") as tar, progress("Packing the images", len(sizes)) as done:
        for name, size in sizes.items():
            header = tarfile.TarInfo(name)
            header.size = size
            tar.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8"))
            places[name] = tar.tell()
            tar.seek(_rounded(size, tarfile.BLOCKSIZE), os.SEEK_CUR)
        tar.truncate(_rounded(tar.tell() + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE))
        for name, data in images:
            if len(data) != sizes[name]:
                raise SourceError(f"{name} has {len(data):,} bytes where {sizes[name]:,} are declared")
            tar.seek(places.pop(name))
            tar.write(data)
            done(1)
    if places:
        raise SourceError(f"{some(list(places))} could not be read")


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
