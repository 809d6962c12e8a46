"""Tiles that cover every pixel, and footprints of GeoTIFFs."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from archive_cases import Colours
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from cmer.archive.index import index
from cmer.archive.scenes import Box, boxes, open_scene
from cmer.archive.search import Searcher
from cmer.archive.settings import Tiling
from cmer.archive.store import Archive
from cmer.config.datasets import Raster
from cmer.data.images import FolderImages
from cmer.errors import UserError


@given(st.integers(1, 400), st.integers(1, 400), st.integers(32, 200), st.integers(0, 16))
def test_tiles_cover_the_image_overlap_and_are_no_more_than_needed(
    width: int, height: int, tile: int, overlap: int
) -> None:
    tiles = boxes(width, height, Tiling(tile=tile, overlap=overlap))
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in tiles:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(tile, width), min(tile, height))
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1 and len(set(tiles)) == len(tiles)
    rows = sorted({(box.top, box.bottom) for box in tiles})
    assert all(before[1] - after[0] >= overlap for before, after in pairwise(rows))
    assert len(rows) == (1 if height <= tile else -((overlap - height) // (tile - overlap)))


def test_an_image_no_larger_than_a_tile_stays_whole() -> None:
    assert boxes(640, 100, Tiling()) == [Box(0, 0, 640, 100)]
    assert [box[0] for box in boxes(641, 100, Tiling())] == [0, 1]


def test_an_overlap_above_half_of_the_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="at most half"):
        Tiling(tile=64, overlap=33)


def geotiff(path: Path, crs: str | None = "EPSG:32631", bands: int = 3, dtype: str = "uint8", **how) -> None:
    """100 x 60 pixels of 10 m, from 500,000 m east and 5,400,000 m north; more red towards the bottom."""
    values = np.random.default_rng(0).integers(40, 60, (bands, 60, 100)).astype(dtype)
    values[0] += np.arange(60, dtype=dtype)[:, None] * 3
    how = {"transform": from_origin(500_000, 5_400_000, 10, 10)} | how
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", "GTiff", 100, 60, bands, crs, dtype=dtype, photometric="RGB", **how) as file:
        file.write(values)


def test_the_footprint_of_every_tile_is_kept(tmp_path: Path, store: Path) -> None:
    """500,000 m east of zone 31 is its central meridian, 3° east; there, a metre north is 1 / 111,190° near 48.7°."""
    geotiff(tmp_path / "images/scene.tif")
    index(tmp_path / "images", store, Colours(), "colours", tiling=Tiling(tile=60, overlap=10))
    rows = sorted(Archive.open(store).read(["box", "west", "south", "east", "north"]).read_all().to_pylist(), key=str)
    assert [row["box"][0] for row in rows] == [0, 40]
    hits = Searcher(Archive.open(store)).search(Colours().encode_texts(["red"])[0], 2)
    assert sorted(hit.box for hit in hits) == [Box(0, 0, 60, 60), Box(40, 0, 100, 60)]
    assert {(hit.width, hit.height) for hit in hits} == {(100, 60)}
    metre_north, metre_east = 1 / 111_200, 1 / (111_320 * np.cos(np.radians(48.75)))
    assert rows[0]["west"] == pytest.approx(3, abs=1e-6) and rows[0]["north"] == pytest.approx(48.7520, abs=2e-3)
    for row in rows:
        assert row["north"] - row["south"] == pytest.approx(600 * metre_north, rel=0.01)
        assert row["east"] - row["west"] == pytest.approx(600 * metre_east, rel=0.01)
        assert row["west"] - 3 == pytest.approx(10 * row["box"][0] * metre_east, rel=0.01, abs=1e-6)


def scene_of(path: Path):
    return open_scene(FolderImages(path.parent), path.name)


def test_a_footprint_across_the_antimeridian_has_its_west_in_the_east(tmp_path: Path) -> None:
    geotiff(tmp_path / "a.tif", "EPSG:32760", transform=from_origin(812_000, 8_000_000, 100, 100))
    found = scene_of(tmp_path / "a.tif").footprint(Box(0, 0, 100, 60))
    assert found is not None and found.west > 179 and found.east < -179


def test_control_points_give_a_footprint_and_no_reference_gives_none(tmp_path: Path) -> None:
    corners = ((0, 0, 10, 50), (0, 100, 11, 50), (60, 0, 10, 49), (60, 100, 11, 49))
    points = [GroundControlPoint(row, column, x, y) for row, column, x, y in corners]
    geotiff(tmp_path / "a.tif", "EPSG:4326", gcps=points, transform=None)
    assert scene_of(tmp_path / "a.tif").footprint(Box(0, 0, 50, 60)) == pytest.approx((10, 49, 10.5, 50))
    geotiff(tmp_path / "b.tif", None)
    assert scene_of(tmp_path / "b.tif").footprint(Box(0, 0, 50, 60)) is None


def test_bands_are_those_of_the_archive_in_later_runs(tmp_path: Path, store: Path) -> None:
    geotiff(tmp_path / "images/deep.tif", bands=4, dtype="uint16")
    geotiff(tmp_path / "images/plain.tif")
    assert len(index(tmp_path / "images", store, Colours(), "colours").skipped) == 1
    with pytest.raises(UserError, match="other values of --bands"):
        index(tmp_path / "images", store, Colours(), "colours", raster=Raster(bands=(1, 2, 3)))
    other = tmp_path / "other.lance"
    index(tmp_path / "images", other, Colours(), "colours", raster=Raster(bands=(1, 2, 3)))
    (tmp_path / "images/deep.tif").touch()
    summary = index(tmp_path / "images", other, Colours(), "colours")
    assert not summary.skipped and (summary.unchanged, summary.updated) == (2, 1)
