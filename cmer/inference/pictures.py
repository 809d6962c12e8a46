"""Images of a user: files or pictures in memory, decoded as those of a dataset are."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from cmer.config.datasets import Raster
from cmer.data.images import LARGEST_BYTES, decode
from cmer.data.raster import UndecodableError
from cmer.errors import UserError
from cmer.io import read_bytes, regular_size

Picture = Path | str | Image.Image
"""An image: its file, or the picture itself."""


def opened(picture: Picture, raster: Raster | None = None) -> Image.Image:
    """The RGB image of a file or a picture, rotated as its EXIF orientation says.

    Args:
        picture: the file, or a picture with 8 bits per channel.
        raster: how TIFF and JPEG 2000 files are converted that do not have three 8-bit bands.

    Raises:
        UserError: the file is missing, is no image or too large, or the picture is broken; the message names it.
    """
    if isinstance(picture, Image.Image):
        return _rgb(picture)
    size = regular_size(picture)
    if size > LARGEST_BYTES:
        raise UserError(f"image {picture} has {size / 2**30:.1f} GiB; cut it into tiles")
    try:
        return decode(read_bytes(picture, size), raster)
    except OSError as error:
        raise UserError(f"image {picture} cannot be read: {error.strerror}") from None
    except UndecodableError as error:
        raise UserError(f"image {picture} cannot be decoded: {error}") from None


def _rgb(picture: Image.Image) -> Image.Image:
    name = getattr(picture, "filename", "") or f"{picture.width} x {picture.height}"
    if picture.mode.startswith(("I", "F")):  # conversion would silently clip to a white image
        raise UserError(f"image {name} does not have 8 bits per channel; convert it first")
    try:
        return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # decoders raise nearly anything on broken bytes
        raise UserError(f"image {name} cannot be decoded: {error}") from None
