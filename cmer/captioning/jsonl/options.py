"""Settings of the jsonl captioner."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cmer.config.captioners import CaptionerOptions
from cmer.io import expand
from cmer.registry import CAPTIONER_OPTIONS


@CAPTIONER_OPTIONS.register("jsonl")
class JsonlOptions(CaptionerOptions):
    """Rich texts of any origin, in a file with one JSON object per image."""

    reads_images: ClassVar[bool] = False

    path: Annotated[str, Field(pattern=r"\.jsonl$")] = Field(
        description="file of objects with file (or filename) and captions: granularity → text or list of texts; "
        "environment variables are expanded"
    )

    def places(self) -> list[str]:
        """See `CaptionerOptions`."""
        return [self.path]

    def files(self) -> list[str]:
        """See `CaptionerOptions`."""
        return [str(expand(self.path))]
