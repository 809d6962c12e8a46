"""Where a dataset's images lie and how one is read: a folder of files, or one uncompressed tar read by offset."""

from __future__ import annotations

import hashlib
import tarfile
from abc import ABC, abstractmethod
from io import BytesIO
from pathlib import Path

from PIL import Image

from cmer.config import Dataset
from cmer.data.annotations import layout_of
from cmer.registry import UserError

UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What PIL raises on bytes that are no image, or a broken or absurdly large one."""


class ImageStore(ABC):
    """Images by file name. Reading keeps no state: safe from several threads and forked or spawned processes."""

    @abstractmethod
    def read(self, file: str) -> bytes:
        """The encoded bytes of an image; `FileNotFoundError` if there is no such file."""

    def load(self, file: str, sha256: str) -> Image.Image:
        """The decoded RGB image, known to be the one that was prepared.

        Raises:
            UserError: it is missing, cannot be decoded, or its bytes are not those with that SHA-256.
        """
        try:
            data = self.read(file)
        except OSError as error:
            raise UserError(f"image {file} cannot be read: {error}; restore it, or prepare the dataset again") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(f"image {file} has changed since the dataset was prepared; restore it, or prepare again")
        try:
            return decode(data)
        except UNDECODABLE as error:
            raise UserError(f"image {file} cannot be decoded: {error}") from None


class FolderImages(ImageStore):
    """Images as files under a folder."""

    def __init__(self, root: Path) -> None:
        """Raises `UserError` where `root` is not a folder."""
        if not root.is_dir():
            raise UserError(f"image folder {root} does not exist; set the dataset's `root` and `images` to where it is")
        self.root = root

    def read(self, file: str) -> bytes:
        """The bytes of `root/file`."""
        return (self.root / file).read_bytes()


class TarImages(ImageStore):
    """Images in an uncompressed tar, read by offset without unpacking."""

    def __init__(self, path: Path) -> None:
        """Reads the headers alone; raises `UserError` where there is no such file."""
        if not path.is_file():
            raise UserError(f"{path} does not exist; `cmer draw` or `cmer fetch` writes it")
        self.path = path
        with tarfile.open(path, "r:") as tar:
            self.places = {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}

    def read(self, file: str) -> bytes:
        """The bytes of the member `file`."""
        if file not in self.places:
            raise FileNotFoundError(f"not in {self.path}")
        offset, size = self.places[file]
        with self.path.open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)


def decode(data: bytes) -> Image.Image:
    """Decode JPEG, TIFF, PNG … of 8 bits a channel to RGB; raises one of `UNDECODABLE`."""
    with Image.open(BytesIO(data)) as image:
        if image.mode.startswith(("I", "F")):  # converting would clip, silently, to a white image
            raise ValueError("its pixels are not 8 bits a channel; stretch them to 8 bits first")
        return image.convert("RGB")


def open_images(options: Dataset, folder: Path | str) -> ImageStore:
    """The images of a dataset prepared in `folder`.

    Raises:
        UserError: the image folder or tar is missing, or an environment variable of the root is not set.
    """
    images = layout_of(options, folder).images
    return FolderImages(images) if images else TarImages(Path(folder) / "images.tar")
