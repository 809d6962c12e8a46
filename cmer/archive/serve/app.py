"""The interface over HTTP: search, details and pictures by id. Paths of the machine are neither taken nor given."""

from __future__ import annotations

import threading
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse
from PIL import Image
from pydantic import BaseModel, Field

from cmer.archive.index import ID_LENGTH
from cmer.archive.pictures import Pictures
from cmer.archive.scenes import Footprint
from cmer.archive.search import Filters, Hit, Searcher, embed_query, parse_bbox
from cmer.archive.serve.guard import Guard
from cmer.archive.settings import Encoder, Vectors
from cmer.archive.store import Archive
from cmer.archive.trouble import StoreError
from cmer.data.images import FORMATS, decode
from cmer.data.raster import UndecodableError
from cmer.errors import UserError

STATIC = Path(__file__).with_name("static")
PAGE = {"/": "index.html", "/app.js": "app.js", "/map.js": "map.js", "/style.css": "style.css"}
LONGEST_QUERY = 500
LARGEST_UPLOAD = 50_000_000
"""Pixels of an uploaded image: a small file may be a very large picture."""
SIDES = {"small": 256, "large": 1024}
FOOTPRINTS = 5000
"""Footprints on the map."""

Id = Annotated[str, InPath(pattern=f"^[0-9a-f]{{{ID_LENGTH}}}$", description="Id of an image in the archive.")]


FOUR = Field(min_length=4, max_length=4)
Rectangle = Annotated[list[float], FOUR]
"""West, south, east and north in degrees."""


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Result(BaseModel):
    """An image or tile: cosine with the query, file name within the archive, tile, whole image, and place."""

    id: str
    score: float
    file: str
    label: str
    box: Annotated[list[int], FOUR]
    width: int
    height: int
    footprint: Rectangle | None


class Found(BaseModel):
    """Results from `offset` on, the best first, and whether there may be more."""

    hits: list[Result]
    more: bool


class About(BaseModel):
    """The archive: its name, its model, its images and tiles by label, and the rectangle around all footprints."""

    name: str
    model: str
    images: int
    labels: dict[str, int]
    bounds: Rectangle | None


class Mapped(BaseModel):
    """Where an image is: id and west, south, east, north in degrees."""

    id: str
    footprint: Rectangle


def create_app(archive: Archive, model: Encoder, token: str = "") -> FastAPI:
    """The server of an archive.

    Args:
        archive: the archive; what it holds when the server starts is served.
        model: the archive's model.
        token: what every request must know; empty: none, and only the names of this machine are answered.

    Raises:
        UserError: the archive is empty, or its folder does not exist.
    """
    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 413, 503)}
    app = FastAPI(title="cmer", version="1", docs_url=None, redoc_url=None, responses=refusals)
    app.add_middleware(Guard, token=token)
    app.add_exception_handler(UserError, _refused)
    for path, name in PAGE.items():
        app.add_api_route(path, _sender(STATIC / name), include_in_schema=False)
    _Service(archive, model).add_routes(app)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503 if isinstance(error, StoreError) else 400)


def _sender(path: Path) -> Any:
    def send() -> FileResponse:
        return FileResponse(path, headers={"cache-control": "no-cache"})

    return send


class _Service:
    """What the routes do."""

    def __init__(self, archive: Archive, model: Encoder) -> None:
        self.archive, self.model = archive, model
        self.searcher, self.pictures = Searcher(archive), Pictures(archive.settings)
        self._one_query = threading.Lock()  # models are not made for several threads
        rows = archive.read(["label", *Footprint._fields]).read_all().to_pydict()
        sides = (rows[name] for name in Footprint._fields)
        places = [place for place in zip(*sides, strict=True) if place[0] is not None]
        self._about = About(
            name=Path(archive.settings.folder).name,
            model=archive.settings.model,
            images=len(rows["label"]),
            labels=dict(sorted(Counter(rows["label"]).items())),
            bounds=_around(places) if places else None,
        )

    def add_routes(self, app: FastAPI) -> None:
        """Add what `/api` answers."""
        missing: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}
        picture = missing | {200: {"content": {"image/webp": {}}}, 410: {"model": Problem}}
        app.get("/api/archive")(self.about)
        app.post("/api/search", responses=missing)(self.search)
        app.get("/api/footprints")(self.footprints)
        app.get("/api/images/{id}", responses=missing)(self.details)
        app.get("/api/images/{id}/picture", responses=picture, response_class=Response)(self.picture)

    def about(self) -> About:
        """What the archive holds."""
        return self._about

    def search(
        self,
        text: Annotated[str, Form(max_length=LONGEST_QUERY, description="What the images should show.")] = "",
        like: Annotated[str, Form(pattern="^([0-9a-f]+)?$", max_length=ID_LENGTH, description="Id of an image.")] = "",
        label: Annotated[str, Form(max_length=LONGEST_QUERY, description="Only images with this label.")] = "",
        bbox: Annotated[str, Form(max_length=200, description="Only images touching west,south,east,north.")] = "",
        offset: Annotated[int, Form(ge=0, le=5000)] = 0,
        count: Annotated[int, Form(ge=1, le=100)] = 40,
        image: Annotated[UploadFile | None, File(description="Image to search with.")] = None,
    ) -> Found:
        """Search by text, by an uploaded image, by an image of the archive, or by their mean."""
        near = self._find(like)[1] if like else None
        filters = Filters((label,) if label else (), parse_bbox(bbox) if bbox else None)
        uploaded = self._uploaded(image) if image is not None else None
        with self._one_query:
            query = embed_query(self.model, text, uploaded, near)
        hits = self.searcher.search(query, offset + count + 1, filters)
        return Found(hits=[_result(hit) for hit in hits[offset : offset + count]], more=len(hits) > offset + count)

    def details(self, id: Id) -> Result:
        """An image of the archive."""
        return _result(self._find(id)[0])

    def picture(self, id: Id, side: Annotated[str, Query(pattern="^(small|large)$")] = "small") -> Response:
        """An image of the archive, as WebP of at most 256 (small) or 1,024 (large) pixels a side."""
        hit, _ = self._find(id)
        try:
            webp = self.pictures.webp(hit, SIDES[side])
        except UserError as error:
            raise HTTPException(410, str(error)) from None
        return Response(webp, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    def footprints(self) -> list[Mapped]:
        """Where images are on Earth; of an archive with very many, an even selection."""
        rows = self.archive.read(["id", *Footprint._fields], "west IS NOT NULL").read_all()
        step = max(1, -(-rows.num_rows // FOOTPRINTS))
        some = zip(*(rows[name].to_pylist()[::step] for name in ("id", *Footprint._fields)), strict=True)
        return [Mapped(id=key, footprint=place) for key, *place in some]

    def _find(self, key: str) -> tuple[Hit, Vectors]:
        found = self.searcher.find(key)
        if found is None:
            raise HTTPException(404, "the archive has no image with this id")
        return found

    def _uploaded(self, upload: UploadFile) -> Image.Image:
        data = upload.file.read()
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as header:
                if header.width * header.height > LARGEST_UPLOAD:
                    raise UserError(f"the image has more than {LARGEST_UPLOAD:,} pixels; send a smaller one")
            return decode(data, self.archive.settings.raster)
        except UndecodableError as error:
            raise UserError(f"the image cannot be read: {error}") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise UserError("the image cannot be read: not an image in a known format, or too large") from None


def _result(hit: Hit) -> Result:
    return Result.model_validate(hit.as_json())


def _around(places: list[tuple[float, ...]]) -> list[float]:
    """The rectangle around footprints; the whole width of the map if one crosses the antimeridian."""
    west, south, east, north = zip(*places, strict=True)
    across = any(left > right for left, right in zip(west, east, strict=True))
    return [-180.0, min(south), 180.0, max(north)] if across else [min(west), min(south), max(east), max(north)]
