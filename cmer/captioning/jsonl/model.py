"""Precomputed rich texts of any origin, from a JSONL file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cmer.captioning.base import Captioner, RichText
from cmer.captioning.jsonl.options import JsonlOptions
from cmer.config.captioners import GRANULARITY
from cmer.data.rows import jsonl_rows
from cmer.errors import UserError
from cmer.io import expand, sha256
from cmer.registry import CAPTIONERS

EXPECTED = 'an object such as {"sentence": "…", "keywords": ["…", "…"]}'


@CAPTIONERS.register("jsonl")
class Jsonl(Captioner):
    """The texts of a file, unchanged except for white space.

    A line is `{"file": "1.jpg", "captions": {"sentence": "…", "keywords": ["…", "…"]}}`; other keys are ignored, so
    that the output of `cmer caption` is a valid input.

    Raises:
        UserError: a line has no file name or no captions, repeats an image, or has a text of another type or a blank
            one.
    """

    def __init__(self, options: JsonlOptions) -> None:
        super().__init__(options)
        self.path = expand(options.path)
        self.texts: dict[str, RichText] = {}
        for where, row in jsonl_rows(self.path):
            file = row.get("file", row.get("filename"))
            if not isinstance(file, str) or not file:
                raise UserError(f"{where}: the file name is {file!r}, not a text")
            if file in self.texts:
                raise UserError(f"{where} repeats image {file}; put all of its texts into one line")
            self.texts[file] = _texts(row.get("captions"), where)

    def check(self, files: Sequence[str]) -> dict[str, Any]:
        """See `Captioner`; counts the entries whose image is not in the dataset."""
        missing = [file for file in files if file not in self.texts]
        if missing:
            others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise UserError(f"{self.path} has no texts of image {missing[0]}{others}; add them")
        return {"unknown_images": len(self.texts.keys() - set(files))}

    def origin(self) -> dict[str, Any]:
        """See `Captioner`."""
        return {"sha256": sha256(Path(self.path))}

    def caption(self, files: Sequence[str], images: Sequence[Image.Image]) -> list[RichText]:
        """See `Captioner`."""
        return [self.texts[file] for file in files]


def _texts(captions: Any, where: str) -> RichText:
    if not isinstance(captions, dict) or not captions:
        raise UserError(f"{where}: captions is not {EXPECTED}")
    found = {}
    for granularity, given in captions.items():
        if not re.fullmatch(GRANULARITY, granularity):
            raise UserError(f"{where}: the granularity {granularity[:50]!r} is not made of a-z, 0-9 and _")
        found[granularity] = given if isinstance(given, list) else [given]
        for text in found[granularity] or [None]:
            if not isinstance(text, str):
                raise UserError(f"{where}: {granularity} is not a text or a list of texts")
            if not text.strip():
                raise UserError(f"{where}: {granularity} has a blank text; remove it")
    return found
