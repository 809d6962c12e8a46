"""Search of an archive by text, by image, or both, among all images or those of a label or place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cmer.archive.ann import nearest_approximately
from cmer.archive.scan import Scan, take
from cmer.archive.scenes import Box, Footprint
from cmer.archive.settings import Encoder, Vectors
from cmer.archive.store import Archive, quoted
from cmer.data.raster import UndecodableError
from cmer.errors import UserError

COLUMNS = (
    "id", "file", "label", "box", "scene_size", "west", "south", "east", "north", "size", "mtime_ns",
)  # fmt: skip


@dataclass(frozen=True)
class Hit:
    """An image or tile that was found.

    Attributes:
        id: its id in the archive.
        score: cosine of its embedding and the query's.
        file: path relative to the indexed folder.
        label: its label, or "".
        box: the tile in pixels.
        width: width of the whole image, pixels.
        height: height of the whole image, pixels.
        footprint: the tile's rectangle on Earth, if known.
        size: bytes of the file when it was indexed.
        mtime_ns: the file's time of change when it was indexed.
    """

    id: str
    score: float
    file: str
    label: str
    box: Box
    width: int
    height: int
    footprint: Footprint | None
    size: int
    mtime_ns: int

    @classmethod
    def of_row(cls, row: dict[str, Any], score: float) -> Hit:
        """The hit of a row with `COLUMNS`."""
        place = None if row["west"] is None else Footprint(*(row[name] for name in Footprint._fields))
        width, height = row["scene_size"]
        plain = {name: row[name] for name in ("id", "file", "label", "size", "mtime_ns")}
        return cls(**plain, score=score, box=Box(*row["box"]), width=width, height=height, footprint=place)

    def as_json(self) -> dict[str, Any]:
        """What users see of it, as JSON values."""
        known = asdict(self) | {"score": round(self.score, 6), "box": list(self.box)}
        known["footprint"] = self.footprint and [round(degrees, 7) for degrees in self.footprint]
        return {name: value for name, value in known.items() if name not in ("size", "mtime_ns")}


@dataclass(frozen=True)
class Filters:
    """Which images are searched.

    Attributes:
        labels: those with one of these labels; all if empty.
        bbox: those whose footprint touches this rectangle, which crosses the antimeridian if `west` > `east`.
    """

    labels: tuple[str, ...] = ()
    bbox: Footprint | None = None

    def where(self) -> str | None:
        """The condition as SQL."""
        conditions = [f"label IN ({', '.join(map(quoted, self.labels))})"] if self.labels else []
        if self.bbox is not None:
            west, south, east, north = self.bbox
            spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
            touching = " OR ".join(f"({_touches(*span)})" for span in spans)
            conditions.append(f"south <= {north!r} AND north >= {south!r} AND ({touching})")
        return " AND ".join(f"({condition})" for condition in conditions) or None


def _touches(west: float, east: float) -> str:
    """Whether a footprint, which may cross the antimeridian, touches a span of longitudes that does not."""
    left, right = f"west <= {east!r}", f"east >= {west!r}"
    return f"(west <= east AND {left} AND {right}) OR (west > east AND ({left} OR {right}))"


def parse_bbox(text: str) -> Footprint:
    """A rectangle from "west,south,east,north" in degrees.

    Raises:
        UserError: it is not one.
    """
    try:
        box = Footprint(*map(float, text.split(",")))
        if not (-90 <= box.south <= box.north <= 90 and max(abs(box.west), abs(box.east)) <= 180):
            raise ValueError
        return box
    except (TypeError, ValueError):
        raise UserError(
            f"bbox {text[:80]!r} is not west,south,east,north in degrees with south <= north, e.g. 5.9,47.2,15.1,55.1"
        ) from None


def embed_query(model: Encoder, text: str = "", image: Any = None, like: Vectors | None = None) -> Vectors:
    """Unit vector of a query: the mean of the unit vectors of its text, its image, and an image of the archive.

    Raises:
        UserError: there is none of them, they cancel out, or the image cannot be read.
    """
    parts = [model.encode_texts([text])[0]] if text.strip() else []
    if image is not None:
        try:
            parts.append(model.encode_images([image])[0])
        except (OSError, UndecodableError) as error:
            raise UserError(f"the query image cannot be read: {error}") from None
    parts += [like] if like is not None else []
    if not parts:
        raise UserError("the query is empty; give a text, an image, or both")
    mean = np.mean(parts, axis=0, dtype=np.float64)
    if (length := np.linalg.norm(mean)) < 1e-6:
        raise UserError("text and image are opposites; search for one of them")
    return np.asarray(mean / length, dtype=np.float32)


class Searcher:
    """Searches one version of an archive's table, in memory-mapped vectors or with the ANN index.

    Attributes:
        archive: the archive.
        approximate: whether the ANN index is used.
    """

    def __init__(self, archive: Archive, exact: bool = False) -> None:
        """Open the archive for search; `exact` does not use the ANN index if there is one.

        Raises:
            UserError: the archive is empty, is being written for the first time, damaged, or cannot be reached.
        """
        self.archive, self.approximate = archive, archive.settings.probes > 0 and not exact
        whole = not (self.approximate and archive.place.shared)
        self._scan = archive.place.asked(lambda: Scan.open(archive)) if whole else None

    def search(self, query: Vectors, top: int, filters: Filters = Filters()) -> list[Hit]:
        """The `top` images with the highest scores, the best first.

        Args:
            query: unit vector [dim].
            top: how many.
            filters: which images are searched.

        Raises:
            StoreError: the archive is gone, damaged or cannot be reached.
        """
        return self.archive.place.asked(lambda: self._search(query, top, filters.where()))

    def _search(self, query: Vectors, top: int, where: str | None) -> list[Hit]:
        if self.approximate or self._scan is None:
            found = nearest_approximately(self.archive, query, top, where, COLUMNS)
            return [Hit.of_row(row, 1 - row["_distance"]) for row in found.to_pylist()]
        rows, scores = self._scan.nearest(query, top, where)
        found = take(self.archive.table, rows, list(COLUMNS)).to_pylist()
        return [Hit.of_row(row, float(score)) for row, score in zip(found, scores, strict=True)]

    def find(self, key: str) -> tuple[Hit, Vectors] | None:
        """An image by its id, with its vector; None if there is none."""
        rows = self.archive.read([*COLUMNS, "vector"], f"id = {quoted(key)}").read_all().to_pylist()
        return (Hit.of_row(rows[0], 1.0), np.asarray(rows[0]["vector"], dtype=np.float32)) if rows else None
