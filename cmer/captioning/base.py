"""Interface of captioners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from cmer.config.captioners import CaptionerOptions

RichText = Mapping[str, Sequence[str]]
"""Texts of one image by granularity: at least one text in all, none of them blank."""

FIELDS = ("scene", "main objects", "quantity", "colours", "layout", "surroundings")
"""What a structured caption says, in this order; as keywords it reads "scene: …; main objects: …; …"."""
GRANULARITIES = ("keywords", "sentence", "paragraph")
"""Granularities of captioners that look at images (chosen here; the source names none)."""


class Captioner(ABC):
    """What writes rich texts of images.

    Args:
        options: its settings.
    """

    def __init__(self, options: CaptionerOptions) -> None:
        self.options = options

    def check(self, files: Sequence[str]) -> dict[str, Any]:
        """Check before the first batch that these images can be captioned; returns facts for the run-time record.

        Raises:
            UserError: an image cannot be captioned.
        """
        return {}

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """What the texts depend on beyond the settings: hashes of weights or files. Part of digest and record."""

    @abstractmethod
    def caption(self, files: Sequence[str], images: Sequence[Image.Image]) -> list[RichText]:
        """Rich texts of a batch.

        Args:
            files: file names of B images.
            images: the images in RGB; empty if the options say that images are not read.

        Returns:
            B rich texts. The same batch gives the same texts.
        """
