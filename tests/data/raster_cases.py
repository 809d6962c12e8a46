import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio.io import MemoryFile


def tiff(bands: npt.NDArray[Any], driver: str = "GTiff", **how: Any) -> bytes:
    """A raster of bands [count, height, width], as GDAL encodes it."""
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with MemoryFile() as file:
        with file.open(driver=driver, **shape, **how) as raster:
            raster.write(bands)
        return bytes(file.read())


def sentinel(seed: int = 0, side: int = 24) -> npt.NDArray[np.uint16]:
    """Four bands of numbers as Sentinel-2 has them: blue, green, red, near infrared."""
    return np.random.default_rng(seed).integers(200, 4000, (4, side, side), dtype=np.uint16)


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    """A picture, as Pillow encodes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def palette(colour: tuple[int, int, int]) -> Image.Image:
    """A square of the second colour of two."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *colour])
    return image


def picture(
    path: Path, colour: tuple[int, int, int] = (20, 120, 30), side: int = 8, height: int = 8, seed: int | None = None
) -> None:
    """Write a rectangle of one colour with a white corner: images of a single colour would be refused.

    With a seed, half of its pixels are white: pictures of different seeds are no near-duplicates.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (side, height), colour)
    image.putpixel((side - 1, height - 1), (255, 255, 255))
    if seed is not None:
        white = Image.fromarray(np.random.default_rng(seed).random((height, side)) < 0.5)
        image.paste((255, 255, 255), mask=white)
    image.save(path)
