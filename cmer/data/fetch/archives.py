"""Members of a folder or an archive. Nothing is unpacked: members are read one by one, so no name reaches the disk."""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import Self

from cmer.data.annotations import files_below, some
from cmer.errors import UserError

GIB = 2**30
MOST_BYTES = 32 * GIB
"""Limit for all files of a dataset or a tar together. The largest known archive holds 5 GB."""
MOST_BYTES_OF_FILE = GIB // 4
"""Limit for one file, which is read into memory as a whole."""
RAR = (
    "{} is a RAR archive, which no Python library unpacks: unpack it into a folder of its own (bsdtar -xf, unar or 7z) "
    "and give that folder, sources: [{{kind: local, path: <folder>}}]"
)
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, struct.error, EOFError, OSError, ValueError,
    RuntimeError,
)  # fmt: skip
"""What Python's archive modules raise for a damaged archive, or one of a format newer than theirs."""
EXTENDED_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class SourceError(UserError):
    """A source does not give the dataset; the message says why, and the next source is tried."""


@dataclass(frozen=True)
class Member:
    """A file in a folder or an archive.

    Attributes:
        name: path within the folder or archive.
        size: declared size in bytes.
        archive: the folder or archive.
        load: reads the content, as long as the archive is open.
        defect: why it cannot be used, whatever its size; "" where it can.
    """

    name: str
    size: int
    archive: Path
    load: Callable[[], bytes]
    defect: str = ""

    @property
    def fault(self) -> str:
        """Why the file cannot be used; "" where it can."""
        large = self.size > MOST_BYTES_OF_FILE
        return self.defect or (f"has {self.size / GIB:.1f} GiB, more than is read," if large else "")

    @property
    def path(self) -> PurePosixPath:
        """The name as a path; some zips written on Windows separate folders by backslashes."""
        return PurePosixPath(self.name.replace("\\", "/"))

    def read(self) -> bytes:
        """The content.

        Raises:
            SourceError: it is damaged, or is not what its checksum says.
        """
        with reading(f"{self.name} in {self.archive}"):
            return self.load()


@contextmanager
def open_archive(path: Path) -> Iterator[list[Member]]:
    """All files in a folder, zip or tar (plain, gz, bz2, xz), recognised by its content, in the archive's order.

    Raises:
        SourceError: it is a RAR archive, is damaged or cut short, unpacks to more than `MOST_BYTES`, or names a file
            outside itself.
    """
    with ExitStack() as stack:
        with reading(path):
            members = list(_members(path, stack))
        outside = [member.name for member in members if member.path.is_absolute() or ".." in member.path.parts]
        if outside:
            raise SourceError(f"{path} is refused: {some(outside)} would lie outside the folder it is unpacked in")
        yield members


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Turn what Python's archive modules raise within the block into a `SourceError` that names `what` is read."""
    try:
        yield
    except BROKEN as error:
        raise SourceError(f"{what} cannot be read: {error or type(error).__name__}") from None


def _members(path: Path, stack: ExitStack) -> Iterator[Member]:
    if path.is_dir():
        return _folder_members(path)
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"Rar!":
        raise SourceError(RAR.format(path))
    if head.startswith(b"PK"):
        return _zip_members(path, stack.enter_context(zipfile.ZipFile(path)))
    return _tar_members(path, stack.enter_context(_open_tar(path)))


def _folder_members(folder: Path) -> Iterator[Member]:
    """Files below a folder of the user's; links are followed."""
    try:
        names = files_below(folder)
    except UserError as error:
        raise SourceError(str(error)) from None
    for name in names:
        if (file := folder / name).is_file():
            yield Member(name, file.stat().st_size, folder, file.read_bytes)


def _zip_members(path: Path, file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        yield Member(info.filename, info.file_size, path, partial(_unzip, file, info), _zip_defect(info))


def _unzip(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Decompress the declared size and no more, unlike `ZipFile.read`; asking for one byte more checks the CRC."""
    with file.open(info) as member:
        return member.read(info.file_size + 1)


def _zip_defect(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile bounds the output of these only
        return "is compressed otherwise than by deflate"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG) else "is a link or a device"


class _BoundedHeader(tarfile.TarInfo):
    """A header that declares no more than a file may have: tarfile reads long names and pax headers as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in one block."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENDED_HEADERS and not 0 <= header.size <= MOST_BYTES_OF_FILE:
            raise SourceError(f"it cannot be read: a header declares {header.size:,} bytes")
        return header


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, tarinfo=_BoundedHeader)
    except tarfile.ReadError:  # a line for each compression that was tried
        raise SourceError(f"{path} cannot be read: it is neither a zip nor a tar (plain, gz, bz2 or xz)") from None


def _tar_members(path: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        if info.size < 0:  # the next header would be this one again
            raise tarfile.ReadError(f"{info.name} declares {info.size} bytes")
        if info.offset_data + info.size > MOST_BYTES:
            raise SourceError(f"{path} is refused: unpacked, it has more than {MOST_BYTES / GIB:.0f} GiB")
        if not info.isdir():
            defect = "" if info.isfile() else "is a link or a device"
            yield Member(info.name, info.size, path, partial(_untar, tar, info), defect)
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # without it, tarfile takes a part for a whole
        raise tarfile.ReadError("it ends too early")


def _untar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return file.read() if file else b""
