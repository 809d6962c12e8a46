from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from raster_cases import encoded, palette, sentinel, tiff
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from cmer.config.datasets import PercentileStretch, RangeStretch, Raster
from cmer.data.images import decode
from cmer.data.raster import BandsError, UndecodableError, shows_nothing

pytestmark = pytest.mark.filterwarnings("ignore")  # pytest undoes the filters of the modules that are tested
NATURAL = Raster(bands=(3, 2, 1))
GRAY = Raster(bands=(1, 1, 1))
NOISE = Image.effect_noise((9, 9), 50).convert("RGB")


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    assert image.mode == "RGB"
    return np.asarray(image)


def stretched(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    """By hand: `low` is black, `high` white, what lies between is in proportion."""
    out = np.empty(values.shape)
    for place, value in np.ndenumerate(values):
        out[place] = min(max((float(value) - low) / (high - low), 0.0), 1.0) * 255
    return out


def percentile(values: list[float], share: float) -> float:
    """By hand: on the line between the two sorted values that the share falls between."""
    ordered = sorted(values)
    below, part = divmod(share / 100 * (len(ordered) - 1), 1)
    after = ordered[min(int(below) + 1, len(ordered) - 1)]
    return ordered[int(below)] * (1 - part) + after * part


@pytest.mark.parametrize(
    "bands",
    [
        sentinel(),
        np.ones((1, 8, 8), np.uint16),
        np.ones((3, 8, 8), np.uint16),
        np.ones((3, 8, 8), np.int8),
        np.ones((5, 8, 8), np.uint8),
        np.ones((2, 8, 8), np.uint8),
        np.ones((1, 8, 8), np.float32),
        np.ones((1, 8, 8), np.float64),
    ],
    ids=lambda bands: f"{len(bands)} {bands.dtype}",
)
def test_without_a_rule_other_bands_are_named_not_guessed(bands: npt.NDArray[Any]) -> None:
    held = f"{len(bands)} band{'s' if len(bands) > 1 else ''} of {bands.dtype}"
    with pytest.raises(BandsError, match=held):
        decode(tiff(bands))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "interleave": "band"},
        {"crs": "EPSG:32633", "transform": Affine(10, 0, 4e5, 0, -10, 5e6), "BIGTIFF": "YES"},
        {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"},
        {"driver": "PNG"},
    ],
    ids=["plain", "tiled", "with a place", "JPEG 2000", "PNG"],
)
@pytest.mark.parametrize("low", [0.0, 500.0])
def test_a_range_is_stretched_as_by_hand(how: dict[str, Any], low: float) -> None:
    bands = sentinel(side=40)
    shown = pixels(
        decode(tiff(bands, **how), Raster(bands=(3, 2, 1), stretch=RangeStretch(kind="range", low=low, high=3000)))
    )
    for channel, band in enumerate((2, 1, 0)):
        assert np.abs(shown[..., channel] - stretched(bands[band], low, 3000)).max() <= 0.5 + 1e-9


def test_a_range_in_numbers() -> None:
    bands = np.array([[[0, 1000, 3000, 60000]]], np.uint16)
    how = Raster(bands=(1, 1, 1), stretch=RangeStretch(kind="range", low=0, high=3000))
    assert pixels(decode(tiff(bands), how))[0, :, 0].tolist() == [0, 85, 255, 255]


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("empty", [None, 7.0])
def test_percentiles_are_of_pixels_with_data(kind: str, empty: float | None) -> None:
    bands = np.random.default_rng(1).integers(10, 120, (4, 20, 30)).astype(kind)
    with_data = np.ones(bands.shape, bool)
    if empty is not None:
        with_data[:, :3] = with_data[2, :, 5] = False
        bands[~with_data] = empty
    if kind.startswith("float"):
        bands[:, 10, :4], bands[1, 11, 0] = np.nan, np.inf
        with_data &= np.isfinite(bands)
    how = Raster(bands=(4, 2, 3), stretch=PercentileStretch(low=5, high=90))
    shown = pixels(decode(tiff(bands, nodata=empty), how))
    for channel, band in enumerate((3, 1, 2)):
        values, valid = bands[band], with_data[band]
        low, high = (percentile(values[valid].tolist(), share) for share in (5, 90))
        assert np.abs(shown[..., channel] - stretched(np.where(valid, values, low), low, high)).max() <= 0.5 + 1e-9
        assert not shown[..., channel][~valid].any()


def test_the_usual_stretch_cuts_two_percent_at_both_ends() -> None:
    shown = pixels(decode(tiff(np.arange(101, dtype=np.uint16).reshape(1, 1, 101)), GRAY))[0, :, 0]
    assert (shown == 0).sum() == 3 and (shown == 255).sum() == 3  # values 0 to 2, and 98 to 100


def test_masked_and_transparent_pixels_are_black_and_count_for_nothing() -> None:
    bands = sentinel(2)
    bands[:3, :4], bands[3] = 65000, 65535
    bands[3, :4] = 0
    shown = pixels(decode(tiff(bands, photometric="RGB", alpha="YES"), NATURAL))
    assert not shown[:4].any()
    low, high = (percentile(bands[0, 4:].ravel().tolist(), share) for share in (2, 98))
    assert np.abs(shown[4:, :, 2] - stretched(bands[0, 4:], low, high)).max() <= 0.5 + 1e-9


def test_a_band_of_one_value_is_black_and_one_without_data_is_an_error() -> None:
    assert not pixels(decode(tiff(np.full((1, 4, 4), 900, np.uint16)), GRAY)).any()
    with pytest.raises(UndecodableError, match="band 1 has no data"):
        decode(tiff(np.zeros((1, 4, 4), np.uint16), nodata=0), GRAY)
    with pytest.raises(UndecodableError, match="band 2 has no data"):
        decode(tiff(np.stack([np.ones((4, 4)), np.full((4, 4), np.nan)])), Raster(bands=(1, 2, 1)))
    with pytest.raises(UndecodableError, match="complex"):
        decode(tiff(np.ones((1, 4, 4), np.complex64)), GRAY)


def test_values_far_apart_or_close_together_are_stretched_without_overflow() -> None:
    bands = np.array([[[-1.7e308, 0, 5e-324, 1e-310, 1.7e308]]])
    for low, high in ((0, 1), (-1e12, 1e12), (1.0, 1.001)):
        shown = pixels(
            decode(tiff(bands), Raster(bands=(1, 1, 1), stretch=RangeStretch(kind="range", low=low, high=high)))
        )
        assert shown[0, [0, -1], 0].tolist() == [0, 255]
    shown = pixels(decode(tiff(bands), Raster(bands=(1, 1, 1), stretch=PercentileStretch(low=0, high=100))))
    assert shown[0, [0, -1], 0].tolist() == [0, 255]
    assert pixels(decode(tiff(bands[..., 1:4]), GRAY))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("values", "nothing"),
    [
        (np.full(5000, 9), True),
        (np.r_[100, np.full(4999, 107)], True),
        (np.r_[100, np.full(4999, 108)], False),
        (np.tile([0, 255], 2500), True),
        (np.r_[np.full(5, 40), np.zeros(4995)], True),
        (np.r_[np.full(6, 40), np.zeros(4994)], False),
    ],
)
def test_a_raster_of_nearly_one_colour_or_of_black_and_white_shows_nothing(
    values: npt.NDArray[Any], nothing: bool
) -> None:
    image = Image.fromarray(np.repeat(values.astype(np.uint8).reshape(50, 100, 1), 3, axis=2))
    assert shows_nothing(image) is nothing


def test_a_picture_of_black_and_white_is_no_raster() -> None:
    assert "rendered" in decode(tiff(sentinel()), NATURAL).info
    assert "rendered" not in decode(encoded(Image.new("1", (4, 4)), "PNG"), NATURAL).info


def test_a_band_that_is_not_there_is_named() -> None:
    with pytest.raises(BandsError, match=r"4 bands of uint16, but no band 8"):
        decode(tiff(sentinel()), Raster(bands=(8, 3, 2)))
    with pytest.raises(BandsError, match=r"1 band of uint8, but no band 3"):
        decode(encoded(Image.new("L", (4, 4), 77), "TIFF"), NATURAL)


def test_a_raster_too_large_is_not_read() -> None:
    with MemoryFile() as file:
        with file.open(driver="GTiff", width=20_000, height=20_000, count=1, dtype="uint16", SPARSE_OK="TRUE"):
            pass
        data = bytes(file.read())
    assert len(data) < 2**20
    with pytest.raises(UndecodableError, match="more than 178,956,970 pixels; cut it into tiles"):
        decode(data, GRAY)


@pytest.mark.parametrize(
    "data",
    [
        encoded(NOISE, "JPEG"),
        encoded(Image.new("L", (4, 4), 77)),
        encoded(Image.new("RGBA", (4, 4), (200, 10, 20, 9))),
        encoded(palette((200, 10, 20)), "TIFF"),
        encoded(NOISE, "TIFF", compression="tiff_lzw"),
        tiff(np.arange(48, dtype=np.uint8).reshape(3, 4, 4)),
    ],
    ids=["JPEG", "gray PNG", "RGBA PNG", "palette TIFF", "RGB TIFF", "GeoTIFF of three bytes"],
)
def test_pictures_beside_rasters_stay_as_they_are(data: bytes) -> None:
    assert pixels(decode(data, NATURAL)).tolist() == pixels(decode(data)).tolist()


def test_a_tiff_of_four_bytes_is_a_picture_until_a_rule_says_more() -> None:
    bands = np.random.default_rng(3).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    assert (pixels(decode(tiff(bands))) == np.moveaxis(bands[:3], 0, -1)).all()
    how = Raster(bands=(3, 2, 1), stretch=RangeStretch(kind="range", low=0, high=255))
    shown = pixels(decode(tiff(bands, photometric="MINISBLACK"), how))
    assert (shown == np.moveaxis(bands[[2, 1, 0]], 0, -1)).all()
