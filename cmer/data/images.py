"""Access to a dataset's images, in a folder or in an uncompressed tar that is read by offset."""

from __future__ import annotations

import hashlib
import tarfile
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from cmer.config.datasets import Dataset, FolderDataset, Raster
from cmer.data.layout import layout_of
from cmer.data.raster import BandsError, UndecodableError, render
from cmer.errors import UserError
from cmer.io import read_bytes

# `cmer prepare` reports defects of images once; Pillow would warn each time they are opened.
warnings.filterwarnings("ignore", module=r"PIL\.")

LARGEST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pillow's limit for images, here also used for rasters: larger ones count as decompression bombs."""
LARGEST_BYTES = 2**31
FORMATS = ("JPEG", "PNG", "TIFF", "JPEG2000", "BMP", "GIF", "WEBP", "PPM")
"""The formats of Pillow that are read. Some of the others start programs, such as Ghostscript."""

RASTERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""First bytes of TIFF and JPEG 2000 files."""
_PNG = b"\x89PNG\r\n\x1a\n"


class ImageStore(ABC):
    """Images by file name. Reading is stateless, so it is safe in threads and in forked or spawned processes.

    Attributes:
        raster: how images that do not have three 8-bit bands are converted to RGB; None if not configured.
        setting: config key of `raster`; "" if the dataset has none.
    """

    raster: Raster | None = None
    setting: str = ""

    @abstractmethod
    def read(self, file: str) -> bytes:
        """The encoded bytes of an image; raises `FileNotFoundError` if it is missing, `OSError` on other failures."""

    def decode(self, data: bytes) -> Image.Image:
        """Decode bytes to an RGB image; see `decode`.

        Raises:
            UndecodableError: the bytes cannot be decoded; the message says why, and names the setting that may help.
        """
        try:
            return decode(data, self.raster)
        except BandsError as error:
            raise UndecodableError(f"{error}; set {self.setting}" if self.setting else error) from None

    def load(self, file: str, sha256: str) -> Image.Image:
        """The decoded RGB image, verified to be the one that was prepared.

        Raises:
            UserError: the image is missing, cannot be decoded, or does not have this SHA-256.
        """
        try:
            data = self.read(file)
        except OSError as error:
            raise UserError(f"image {file} cannot be read: {error}; restore it, or prepare the dataset again") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"image {file} has changed since the dataset was prepared; restore it, or prepare again")
        try:
            return self.decode(data)
        except UndecodableError as error:
            raise UserError(f"image {file} cannot be decoded: {error}") from None


class FolderImages(ImageStore):
    """Images as files under a folder."""

    def __init__(self, root: Path, raster: Raster | None = None, setting: str = "") -> None:
        """Raises `UserError` where `root` is not a folder."""
        if not root.is_dir():
            raise UserError(f"image folder {root} does not exist; correct the dataset's `root` and `images`")
        self.root, self.raster, self.setting = root, raster, setting

    def read(self, file: str) -> bytes:
        """The bytes of `root/file`."""
        path = self.root / file
        size = path.stat().st_size
        if not path.is_file():  # opening a pipe would block forever
            raise OSError("it is not a file")
        if size > LARGEST_BYTES:
            raise OSError(f"it has {size / 2**30:.1f} GiB; cut it into tiles")
        return read_bytes(path, size)


class TarImages(ImageStore):
    """Images in an uncompressed tar, read by offset without unpacking."""

    def __init__(self, path: Path) -> None:
        """Read only the headers; raises `UserError` if the file is missing or not a complete tar."""
        if not path.is_file():
            raise UserError(f"{path} does not exist; `cmer draw` or `cmer fetch` writes it")
        self.path = path
        try:
            with tarfile.open(path, "r:") as tar:
                self.places = {member.name: _place(member) for member in tar if member.isfile()}
        except Exception as error:  # tarfile raises several kinds on broken headers
            raise UserError(
                f"{path} is broken ({error}); remove it and run `cmer draw` or `cmer fetch` again"
            ) from None

    def read(self, file: str) -> bytes:
        """The bytes of the member `file`."""
        if file not in self.places:
            raise FileNotFoundError(f"not in {self.path}")
        offset, size = self.places[file]
        with self.path.open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)


def _place(member: tarfile.TarInfo) -> tuple[int, int]:
    """Offset and size of a member's bytes."""
    if member.issparse() or not 0 <= member.size <= LARGEST_BYTES:
        raise ValueError(f"{member.name[:100]!r} is sparse, or has {member.size} bytes")
    return member.offset_data, member.size


def decode(data: bytes, raster: Raster | None = None) -> Image.Image:
    """Decode an image to RGB with 8 bits per channel, rotated as its EXIF orientation says.

    Gray, palette, CMYK and 1-bit images are converted. Transparency is dropped; only the first of several frames or
    pages is used. `raster` (see `cmer.data.raster`) applies to TIFF and JPEG 2000 files that do not have three 8-bit
    bands, and to 16-bit PNG; it does not affect other images.

    Args:
        data: JPEG, PNG, TIFF, JPEG 2000, BMP, GIF, WebP or PPM.
        raster: bands and stretch; None if not configured.

    Raises:
        UndecodableError: the format is none of these, or the image is broken or too large.
        BandsError: the image needs the setting `raster`, or other bands in it.
    """
    if not data:
        raise UndecodableError("the file is empty")
    try:
        deep = data.startswith(_PNG) and data[24:25] == b"\x10"  # bits per channel; Pillow would clip or truncate them
        rendered = render(data, raster, LARGEST_PIXELS) if deep or data.startswith(RASTERS) else None
        return rendered or _picture(data)
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError("not an image in a known format") from None
    except Image.DecompressionBombError:
        raise UndecodableError(f"it has more than {LARGEST_PIXELS:,} pixels; cut it into tiles") from None
    except Exception as error:  # decoders raise nearly anything on broken bytes
        raise UndecodableError(str(error).partition("\n")[0][:120] or type(error).__name__) from None


def _picture(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if image.mode.startswith(("I", "F")):  # conversion would silently clip to a white image
            raise UndecodableError("its pixels do not have 8 bits per channel; save it as TIFF or PNG")
        image.load()
        with suppress(Exception):  # broken metadata does not make the image unusable
            ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGB")


def open_images(options: Dataset, folder: Path | str) -> ImageStore:
    """The images of a dataset prepared in `folder`.

    Raises:
        UserError: the image folder or tar is missing, or an environment variable of the root is not set.
    """
    images = layout_of(options, folder).images
    if images is None:
        return TarImages(Path(folder) / "images.tar")
    if isinstance(options, FolderDataset):
        return FolderImages(images, options.raster, f"datasets.{Path(folder).name}.raster")
    return FolderImages(images)
