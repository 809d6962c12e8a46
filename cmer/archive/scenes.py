"""Images of a folder, cut into tiles, with the places on Earth that GeoTIFFs state."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from affine import Affine
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import array_bounds, from_gcps
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from cmer.config.archives import Tiling
from cmer.data.images import RASTERS, FolderImages
from cmer.data.raster import DRIVERS


class Box(NamedTuple):
    """A part of an image in pixels, without `right` and `bottom` themselves."""

    left: int
    top: int
    right: int
    bottom: int


class Footprint(NamedTuple):
    """A rectangle in degrees (WGS 84); `west` is greater than `east` if it crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a raster are on Earth."""

    transform: Affine
    crs: Any

    def footprint(self, box: Box) -> Footprint | None:
        """The rectangle around a part of the raster; None if its coordinates cannot be transformed."""
        left, top, right, bottom = box
        corner = window_transform(Window(left, top, right - left, bottom - top), self.transform)
        bounds = array_bounds(bottom - top, right - left, corner)
        try:
            found = transform_bounds(self.crs, "EPSG:4326", *bounds)
        except RasterioError:
            return None
        west, south, east, north = found
        valid = all(map(math.isfinite, found)) and -90 <= south <= north <= 90 and max(abs(west), abs(east)) <= 180
        return Footprint(*found) if valid else None


@dataclass(frozen=True)
class Scene:
    """A decoded image.

    Attributes:
        image: RGB.
        sha256: of the file.
        georeference: None if the file states none.
    """

    image: Image.Image
    sha256: str
    georeference: Georeference | None

    def footprint(self, box: Box) -> Footprint | None:
        """Where a part of the image is on Earth; None if unknown."""
        return None if self.georeference is None else self.georeference.footprint(box)


def open_scene(images: FolderImages, file: str) -> Scene:
    """Read and decode an image.

    Raises:
        OSError: it cannot be read.
        UndecodableError: it cannot be decoded.
    """
    data = images.read(file)
    return Scene(images.decode(data), hashlib.sha256(data).hexdigest(), _georeference(data))


def _georeference(data: bytes) -> Georeference | None:
    if not data.startswith(RASTERS):
        return None
    try:
        with MemoryFile(data) as memory, memory.open(driver=DRIVERS) as source:
            points, crs = source.gcps
            if source.crs:
                return Georeference(source.transform, source.crs)
            return Georeference(from_gcps(points), crs) if points and crs else None
    except RasterioError:  # Pillow reads some TIFFs that GDAL does not
        return None


def boxes(width: int, height: int, tiling: Tiling) -> list[Box]:
    """The tiles of an image, row by row: as few as cover it with the overlap, at equal distances.

    An image whose sides are at most `tiling.tile` is one tile. Neighbours overlap by at least `tiling.overlap` pixels.
    """
    across, down = min(tiling.tile, width), min(tiling.tile, height)
    return [
        Box(left, top, left + across, top + down) for top in _starts(height, tiling) for left in _starts(width, tiling)
    ]


def _starts(length: int, tiling: Tiling) -> list[int]:
    if length <= tiling.tile:
        return [0]
    count = math.ceil((length - tiling.overlap) / (tiling.tile - tiling.overlap))
    return [(length - tiling.tile) * number // (count - 1) for number in range(count)]
