"""Conversion of rasters to RGB: selection of bands, and stretch of their values between black and white."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile

from cmer.config.datasets import PercentileStretch, Raster, Stretch

# The geographic position of an image is irrelevant here, and a nodata value takes precedence over alpha.
for _warning in (NotGeoreferencedWarning, NodataShadowWarning):
    warnings.filterwarnings("ignore", category=_warning)

DRIVERS = ["GTiff", "JP2OpenJPEG", "PNG"]
"""The formats of GDAL that are read. Others can refer to further files or addresses, which GDAL would open."""

RED_GREEN_BLUE = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
PICTURES = ((ColorInterp.gray,), (ColorInterp.gray, ColorInterp.alpha), (*RED_GREEN_BLUE, ColorInterp.alpha))


class UndecodableError(ValueError):
    """Bytes that are not an image, a broken image, or one that cannot be converted to RGB; the message says which."""


class BandsError(UndecodableError):
    """The bands are not red, green and blue with 8 bits, and no setting says how to convert them."""


def render(data: bytes, raster: Raster | None, largest: int) -> Image.Image | None:
    """Convert an encoded raster to RGB.

    Args:
        data: a TIFF, JPEG 2000 or PNG.
        raster: bands and stretch; None if not configured.
        largest: maximum number of pixels.

    Returns:
        the RGB image, with "rendered" in its `info`, or None for an ordinary picture, which needs no conversion: three
        bands of 8 bits that the file declares as red, green and blue, or a palette; if `raster` is None, also one band
        of 8 bits or four with alpha.

    Raises:
        BandsError: the image is not an ordinary picture, and `raster` is None or names a band that does not exist.
        UndecodableError: the image is too large, has complex values, or has a band without data.
        OSError: GDAL cannot read it.
    """
    with MemoryFile(data) as file, file.open(driver=DRIVERS) as source:
        if _is_picture(source, raster is None):
            return None
        held = f"{source.count} band{'s' * (source.count > 1)} of {source.dtypes[0]}"
        if raster is None:
            raise BandsError(held)
        if max(raster.bands) > source.count:
            raise BandsError(f"{held}, but no band {max(raster.bands)}")
        if source.width * source.height > largest:
            raise UndecodableError(f"it has more than {largest:,} pixels; cut it into tiles")
        image = Image.fromarray(np.stack([_band(source, band, raster.stretch) for band in raster.bands], axis=-1))
        image.info["rendered"] = True
        return image


def _is_picture(source: DatasetReader, lenient: bool) -> bool:
    colours = tuple(source.colorinterp)
    known = colours in (RED_GREEN_BLUE, (ColorInterp.palette,)) or (lenient and colours in PICTURES)
    return known and set(source.dtypes) == {"uint8"}


def _band(source: DatasetReader, band: int, how: Stretch) -> npt.NDArray[np.uint8]:
    """Stretch a band to bytes [height, width]: 0 for values up to `low`, 255 for values from `high`.

    Pixels without data (the file's nodata value, mask or alpha band; NaN and infinite values) become 0.
    """
    if np.iscomplexobj(np.empty(0, source.dtypes[band - 1])):
        raise UndecodableError("its pixels are complex numbers")
    values = np.ma.masked_invalid(source.read(band, masked=True).astype(np.float64))
    if not values.count():
        raise UndecodableError(f"band {band} has no data")
    low, high = how.low, how.high
    if isinstance(how, PercentileStretch):
        low, high = np.percentile(values.compressed(), [how.low, how.high])
    # A band with a single value has no contrast to stretch and becomes black.
    scaled = np.interp(values.filled(low), [low, high], [0, 255 if high > low else 0])
    shown: npt.NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return shown


def shows_nothing(image: Image.Image) -> bool:
    """Whether the settings of a raster do not fit its values: nearly one colour, or nearly all black or white.

    The limits are chosen here: the brightest value of any band is less than 8 of 255 above the darkest, or fewer than
    one in 1,000 values is neither 0 nor 255.
    """
    values = np.asarray(image)
    between = int(np.count_nonzero((values > 0) & (values < 255)))
    return int(values.max()) - int(values.min()) < 8 or 1000 * between <= values.size
