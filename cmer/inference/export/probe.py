"""Images and texts by which an export is compared with its run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cmer.errors import UserError
from cmer.inference.model import RetrievalModel, Vectors

TEXTS = (
    "a pond",
    "many planes are parked next to a long building in an airport .",
    "two tennis courts are surrounded by some green trees and several buildings .",
    "white waves in a green ocean are near a yellow beach",
)
"""Queries of different lengths, in the words of RSICD's captions."""


def pictures(count: int = 3) -> list[Image.Image]:
    """Drawn images of any colours: coarse random fields, enlarged."""
    fields = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return [Image.fromarray(field).resize((300, 240), Image.Resampling.BICUBIC) for field in fields]


def embedded(model: RetrievalModel) -> list[Vectors]:
    """Embeddings of the pictures and of the texts."""
    return [model.encode_images(pictures()), model.encode_texts(TEXTS)]


def require_close(found: Sequence[Vectors], expected: Sequence[Vectors], limit: float, what: str) -> float:
    """The largest difference of a component; a `UserError` if it is above the limit."""
    largest = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    if not largest <= limit:  # also if it is not a number
        raise UserError(f"{what} differs from the run by {largest:.1e}, more than {limit:.0e}; nothing was written")
    return largest
