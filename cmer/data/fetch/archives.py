"""Members of a folder or an archive. They are read one by one; nothing is unpacked under the names in an archive."""

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

from cmer.data.annotations import abbreviate, files_below
from cmer.errors import UserError
from cmer.io import read_bytes

GIB = 2**30
MAX_BYTES = 32 * GIB
"""Maximum total size of a dataset's files or of a tar. The largest known archive has 5 GB."""
MAX_FILE_BYTES = GIB // 4
"""Maximum size of one file, which is read into memory at once."""
RAR = (
    "{} is a RAR archive, which no Python library unpacks: unpack it into a folder of its own (bsdtar -xf, unar or 7z) "
    "and use that folder as the source, sources: [{{kind: local, path: <folder>}}]"
)
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, struct.error, EOFError, OSError, ValueError,
    RuntimeError,
)  # fmt: skip
"""Exceptions that Python's archive modules raise for damaged archives, or for formats newer than they support."""
EXTENDED_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class SourceError(UserError):
    """A source does not provide the dataset; the message says why. The next source is then tried."""


@dataclass(frozen=True)
class Member:
    """A file in a folder or an archive.

    Attributes:
        name: path within the folder or archive.
        size: declared size in bytes.
        archive: the folder or archive.
        load: reads the content, as long as the archive is open.
        defect: why the file cannot be used, regardless of its size; "" if it can.
    """

    name: str
    size: int
    archive: Path
    load: Callable[[], bytes]
    defect: str = ""

    @property
    def fault(self) -> str:
        """Why the file cannot be used; "" if it can."""
        large = self.size > MAX_FILE_BYTES
        return self.defect or (f"has {self.size / GIB:.1f} GiB, more than the limit," if large else "")

    @property
    def path(self) -> PurePosixPath:
        """The name as a path; some zips written on Windows separate folders with backslashes."""
        return PurePosixPath(self.name.replace("\\", "/"))

    def read(self) -> bytes:
        """The content.

        Raises:
            SourceError: the file is damaged, or does not match its checksum.
        """
        with reading(f"{self.name} in {self.archive}"):
            return self.load()


@contextmanager
def open_archive(path: Path) -> Iterator[list[Member]]:
    """All files in a folder, zip or tar (uncompressed, gz, bz2, xz), in its order. The format is detected by content.

    Raises:
        SourceError: the archive is a RAR archive, damaged or truncated, unpacks to more than `MAX_BYTES`, or has a file
            name that points outside it.
    """
    with ExitStack() as stack:
        with reading(path):
            members = list(_members(path, stack))
        outside = [member.name for member in members if member.path.is_absolute() or ".." in member.path.parts]
        if outside:
            raise SourceError(f"{path} is refused: {abbreviate(outside)} points outside the archive")
        yield members


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Convert exceptions of Python's archive modules in the block to a `SourceError` that names `what`."""
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
    """Files below a user's folder; links are followed."""
    try:
        names = files_below(folder)
    except UserError as error:
        raise SourceError(str(error)) from None
    for name in names:
        if (file := folder / name).is_file():
            size = file.stat().st_size
            yield Member(name, size, folder, partial(read_bytes, file, size))


def _zip_members(path: Path, file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        yield Member(info.filename, info.file_size, path, partial(_unzip, file, info), _zip_defect(info))


def _unzip(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Decompress at most the declared size, unlike `ZipFile.read`; requesting one more byte checks the CRC."""
    with file.open(info) as member:
        return member.read(info.file_size + 1)


def _zip_defect(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile limits the output of these only
        return "is compressed with a method other than deflate"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG) else "is a link or a device"


class _BoundedHeader(tarfile.TarInfo):
    """A header with limited sizes of long names and pax headers, which tarfile reads into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse the header in one block."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENDED_HEADERS and not 0 <= header.size <= MAX_FILE_BYTES:
            raise SourceError(f"it cannot be read: a header declares {header.size:,} bytes")
        return header


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, tarinfo=_BoundedHeader)
    except tarfile.ReadError:  # its message has a line for each compression that was tried
        raise SourceError(
            f"{path} cannot be read: it is neither a zip nor a tar (uncompressed, gz, bz2 or xz)"
        ) from None


def _tar_members(path: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        if info.size < 0:  # tarfile would read this header again
            raise tarfile.ReadError(f"{info.name} declares {info.size} bytes")
        if info.offset_data + info.size > MAX_BYTES:
            raise SourceError(f"{path} is refused: it unpacks to more than {MAX_BYTES / GIB:.0f} GiB")
        if not info.isdir():
            defect = "" if info.isfile() else "is a link or a device"
            yield Member(info.name, info.size, path, partial(_untar, tar, info), defect)
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile itself does not notice truncation
        raise tarfile.ReadError("it is truncated")


def _untar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return file.read() if file else b""
