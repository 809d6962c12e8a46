"""Folders and archives as copies of a dataset. An archive is never unpacked: its members are read one by one."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cmer.config.datasets import ListLabels
from cmer.data.annotations import files_below, some
from cmer.data.cards import Card
from cmer.data.fetch.copies import GIB, MOST_BYTES, MOST_BYTES_OF_FILE, Copy, SourceError
from cmer.errors import UserError

RAR = (
    "{} is a RAR archive, which no Python library unpacks: unpack it into a folder of its own (bsdtar -xf, unar or 7z) "
    "and give that folder, sources: [{{kind: local, path: <folder>}}]"
)
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError,
    RuntimeError,
)  # fmt: skip
"""What reading an archive raises that is broken, or newer than Python's zipfile."""
UNPACKERS: dict[bytes, Callable[[Path, str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""How compressed tars begin."""


@dataclass(frozen=True)
class Member:
    """A file of an archive: its name with folders, declared bytes, and why it cannot be used ("" where it can)."""

    name: str
    size: int
    fault: str = ""


class Archive(ABC):
    """Files in a folder or an archive, listed and read one by one.

    Both methods raise `SourceError` where it is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """All that is not a folder."""

    @abstractmethod
    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The named ones, in the archive's order."""


def open_archive(path: Path) -> Archive:
    """The folder, zip or tar (plain, gz, bz2, xz) at `path`, told by its content, whatever its name.

    Raises:
        SourceError: it is a RAR archive, or cannot be read.
    """
    if path.is_dir():
        return Folder(path)
    with _reading(path), path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"Rar!"):
        raise SourceError(RAR.format(path))
    return Zip(path) if head.startswith(b"PK") else Tar(path)


@contextmanager
def _reading(what: object) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise SourceError(f"{what} cannot be read: {error or type(error).__name__}") from None


# --- the copy of a dataset within -------------------------------------------------------------------------------------


def copy_in(archive: Archive, known: Card) -> Copy:
    """The copy of a dataset that lies in an archive, perhaps beside others: all below its annotation file's folder.

    Raises:
        SourceError: it has no annotation file or several, or the archive is broken or not safe to read.
    """
    members = list(archive.members())
    outside = [member.name for member in members if _path(member).is_absolute() or ".." in _path(member).parts]
    if outside:
        raise SourceError(f"{archive.path} is refused: {some(outside)} would lie outside the folder it is unpacked in")
    annotations = _only(archive, members, known.annotations)
    below = [member for member in members if _path(member).is_relative_to(_path(annotations).parent)]
    usable, faults = by_name(below)
    lists = {name: member for name, member in usable.items() if _is_list(member, known)}
    texts = dict(archive.read({member.name for member in [annotations, *lists.values()]}))

    def read(names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        files = {usable[name].name: name for name in names}
        return ((files[file], data) for file, data in archive.read(files))

    return Copy(
        annotations=texts[annotations.name],
        labels=known.labels,
        lists={name: texts[member.name] for name, member in lists.items()},
        sizes={name: member.size for name, member in usable.items()},
        faults=faults,
        read=read,
    )


def _path(member: Member) -> PurePosixPath:
    return PurePosixPath(member.name.replace("\\", "/"))  # as some zips of Windows part folders


def _only(archive: Archive, members: Collection[Member], name: str) -> Member:
    """The one member called `name`, in any folder."""
    usable, faults = by_name([member for member in members if _path(member).name == name])
    if name not in usable:
        raise SourceError(f"{name} {faults.get(name, 'is not')} in {archive.path}")
    return usable[name]


def by_name(members: Iterable[Member]) -> tuple[dict[str, Member], dict[str, str]]:
    """Members by their names without folders, and why others of these names cannot be used."""
    usable: dict[str, Member] = {}
    faults: dict[str, str] = {}
    for member in members:
        name = _path(member).name
        if name in usable:
            faults[name] = f"is there twice, as {usable[name].name} and {member.name},"
        elif member.fault or member.size > MOST_BYTES_OF_FILE:
            faults[name] = member.fault or f"has {member.size / GIB:.1f} GiB, more than is read,"
        usable.setdefault(name, member)
    return {name: member for name, member in usable.items() if name not in faults}, faults


def _is_list(member: Member, known: Card) -> bool:
    rule, path = known.labels, _path(member)
    return isinstance(rule, ListLabels) and path.parent.name == rule.folder and path.suffix == ".txt"


# --- kinds of archives ------------------------------------------------------------------------------------------------


class Folder(Archive):
    """A folder of the user's, who may have linked in what lies elsewhere."""

    def members(self) -> Iterator[Member]:
        """All files below it."""
        try:
            names = files_below(self.path)
        except UserError as error:
            raise SourceError(str(error)) from None
        with _reading(self.path):
            for name in names:
                path = self.path / name
                if path.is_file():
                    yield Member(name, path.stat().st_size)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The named ones."""
        with _reading(self.path):
            for name in names:
                yield name, (self.path / name).read_bytes()


class Zip(Archive):
    """A zip archive."""

    def members(self) -> Iterator[Member]:
        """As its directory lists them."""
        with _reading(self.path), zipfile.ZipFile(self.path) as file:
            yield from (Member(info.filename, info.file_size, _zip_fault(info)) for info in file.infolist())

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The named ones; no more than the declared size is decompressed."""
        with _reading(self.path), zipfile.ZipFile(self.path) as file:
            for info in file.infolist():
                if info.filename in names:
                    with _reading(f"{info.filename} in {self.path}"), file.open(info) as member:
                        data = member.read(info.file_size + 1)
                    yield info.filename, data


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are not decompressed piecemeal
        return "is compressed otherwise than by deflate"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG) else "is a link or a device"


class Tar(Archive):
    """A tar archive, plain or compressed by gzip, bzip2 or xz."""

    def members(self) -> Iterator[Member]:
        """In its order. A tar without its end, which Python takes for whole, is broken too."""
        with self._opened() as (tar, file):
            for info in tar:
                if info.size < 0:  # else the next header would be this one
                    raise tarfile.ReadError(f"{info.name} declares {info.size} bytes")
                if info.offset_data + info.size > MOST_BYTES:
                    raise SourceError(f"{self.path} is refused: unpacked, it has more than {MOST_BYTES / GIB:.0f} GiB")
                if not info.isdir():
                    yield Member(info.name, info.size, "" if info.isfile() else "is a link or a device")
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends too early")

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The named ones."""
        with self._opened() as (tar, _):
            for info in tar:
                if info.name in names and (member := tar.extractfile(info)):
                    yield info.name, member.read()

    @contextmanager
    def _opened(self) -> Iterator[tuple[tarfile.TarFile, io.BufferedReader]]:
        with _reading(self.path):
            with self.path.open("rb") as packed:
                head = packed.read(8)
            unpacker = next((opener for magic, opener in UNPACKERS.items() if head.startswith(magic)), open)
            with unpacker(self.path, "rb") as file:
                bounded = _Bounded(file)
                with tarfile.open(fileobj=bounded, mode="r:") as tar:
                    yield tar, bounded


class _Bounded(io.BufferedReader):
    """Refuses to read what no honest tar asks for: a header may declare any size, and is read whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MOST_BYTES_OF_FILE:
            raise tarfile.ReadError(f"a header declares {size:,} bytes")
        return super().read(size)
