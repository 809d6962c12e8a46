"""Rasters as RGB images: which bands show, and which of their values are black and white."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile

from cmer.config.datasets import PercentileStretch, Raster, Stretch

# Where an image lies on the earth does not matter here, and a nodata value goes before alpha.
for _warning in (NotGeoreferencedWarning, NodataShadowWarning):
    warnings.filterwarnings("ignore", category=_warning)

DRIVERS = ["GTiff", "JP2OpenJPEG", "PNG"]
"""Of GDAL's formats, those that are read. Others can name further files or addresses, which GDAL would open."""

RED_GREEN_BLUE = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
PICTURES = ((ColorInterp.gray,), (ColorInterp.gray, ColorInterp.alpha), (*RED_GREEN_BLUE, ColorInterp.alpha))


class UndecodableError(ValueError):
    """Bytes that are no image, a broken one, or one that cannot become RGB; the message says which."""


class BandsError(UndecodableError):
    """The bands are not red, green and blue of 8 bits, and nothing says how they become so."""


def render(data: bytes, raster: Raster | None, largest: int) -> Image.Image | None:
    """The RGB image of an encoded raster.

    Args:
        data: a TIFF, JPEG 2000 or PNG.
        raster: bands and stretch; None where nothing is known of them.
        largest: number of pixels above which it is not read.

    Returns:
        None for a picture, which needs neither: three bands of 8 bits that the file calls red, green and blue, or a
        palette; and without `raster`, one band of 8 bits or four with alpha.

    Raises:
        BandsError: it is no picture, and `raster` is None or asks for a band that it does not have.
        UndecodableError: it is too large, of complex numbers, or has no data in a band.
        OSError: GDAL cannot read it.
    """
    with MemoryFile(data) as file, file.open(driver=DRIVERS) as source:
        if _is_picture(source, raster is None):
            return None
        held = f"{source.count} band{'s' * (source.count > 1)} of {source.dtypes[0]}"
        if raster is None:
            raise BandsError(held)
        if max(raster.bands) > source.count:
            raise BandsError(f"{held}, none of number {max(raster.bands)}")
        if source.width * source.height > largest:
            raise UndecodableError(f"it has more than {largest:,} pixels; cut it into tiles")
        return Image.fromarray(np.stack([_band(source, band, raster.stretch) for band in raster.bands], axis=-1))


def _is_picture(source: DatasetReader, lenient: bool) -> bool:
    colours = tuple(source.colorinterp)
    known = colours in (RED_GREEN_BLUE, (ColorInterp.palette,)) or (lenient and colours in PICTURES)
    return known and set(source.dtypes) == {"uint8"}


def _band(source: DatasetReader, band: int, how: Stretch) -> npt.NDArray[np.uint8]:
    """Bytes [height, width] of a band: 0 at `low` and below, 255 at `high` and above.

    Pixels without data (the file's nodata value, mask or alpha band; NaN and infinite values) are 0.
    """
    if np.iscomplexobj(np.empty(0, source.dtypes[band - 1])):
        raise UndecodableError("its values are complex numbers")
    values = np.ma.masked_invalid(source.read(band, masked=True).astype(np.float64))
    if not values.count():
        raise UndecodableError(f"band {band} holds no data")
    low, high = how.low, how.high
    if isinstance(how, PercentileStretch):
        low, high = np.percentile(values.compressed(), [how.low, how.high])
    # A band of one value has no contrast to stretch: it is black.
    scaled = (values.filled(low) - low) * (255 / (high - low) if high > low else 0)
    shown: npt.NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return shown
