"""Results of a search as one HTML page that contains its pictures."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cmer.archive.pictures import Pictures
from cmer.archive.search import Hit
from cmer.archive.settings import Settings
from cmer.data.urls import data_url
from cmer.errors import UserError

SIDE = 256
"""Longer side of a picture, pixels."""


def render(settings: Settings, query: str, hits: Sequence[Hit]) -> str:
    """The page; a hit whose file cannot be read has the reason in place of its picture.

    Args:
        settings: those of the archive.
        query: what was searched, for people.
        hits: the results, the best first.
    """
    pictures = Pictures(settings)
    environment = Environment(
        loader=PackageLoader("cmer.archive"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [(hit, *_picture(pictures, hit)) for hit in hits]
    return environment.get_template("results.html").render(settings=settings, query=query, hits=shown)


def _picture(pictures: Pictures, hit: Hit) -> tuple[Markup | str, str]:
    try:
        return Markup(data_url(pictures.webp(hit, SIDE), "image/webp")), ""
    except UserError as error:
        return "", str(error)
