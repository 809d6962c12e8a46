"""Small pictures of images in an archive, read from the indexed folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from cmer.archive.search import Hit
from cmer.archive.settings import Settings
from cmer.data.images import FolderImages
from cmer.data.raster import UndecodableError
from cmer.errors import UserError

QUALITY = 80
SCENES = 2
"""Decoded scenes that are kept, as tiles of one scene are often shown together."""


class Pictures:
    """Pictures of hits. A file that has changed since it was indexed is not read: it may be of anything."""

    def __init__(self, settings: Settings) -> None:
        """Raises `UserError` where the indexed folder does not exist."""
        self.images = FolderImages(Path(settings.folder), settings.raster, "--bands")
        self._scene: Callable[[str, int], Image.Image] = lru_cache(maxsize=SCENES)(self._decode)

    def webp(self, hit: Hit, side: int) -> bytes:
        """The image or tile as WebP, whose longer side has at most `side` pixels.

        Raises:
            UserError: the file is gone, unreadable, or has changed since it was indexed.
        """
        try:
            status = (self.images.root / hit.file).stat()
            if (status.st_size, status.st_mtime_ns) != (hit.size, hit.mtime_ns):
                raise UserError(f"{hit.file} has changed since it was indexed; run `cmer index` again")
            picture = self._scene(hit.file, hit.mtime_ns).crop(hit.box)
        except (OSError, UndecodableError) as error:
            raise UserError(f"{hit.file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = BytesIO()
        picture.save(file, "WEBP", quality=QUALITY)
        return file.getvalue()

    def _decode(self, file: str, mtime_ns: int) -> Image.Image:
        return self.images.decode(self.images.read(file))
