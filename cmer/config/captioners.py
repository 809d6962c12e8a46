"""Settings that all captioners have in common; those of one kind are in its folder of `cmer/captioning/`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny

from cmer.config.backbones import parse_kind
from cmer.config.base import Model, Positive
from cmer.registry import CAPTIONER_OPTIONS, CAPTIONERS

GRANULARITY = r"^[a-z0-9_]+$"
Granularity = Annotated[str, Field(pattern=GRANULARITY, max_length=50)]
"""How long and detailed a rich text is: keywords, sentence, paragraph; precomputed texts may have others."""


class CaptionerOptions(Model):
    """Settings that all captioners have in common, and what planning must know of them without importing torch.

    Class attributes:
        reads_images: whether images are decoded; if not, their file names are enough.
    """

    reads_images: ClassVar[bool] = True

    kind: str = Field(description="folder of cmer/captioning/, or entry point of another package")
    batch_size: Positive = Field(default=8, description="images that are captioned at once")

    @property
    def gpu(self) -> bool:
        """Whether a job needs a GPU of its own."""
        return False

    @property
    def memory_mb(self) -> int:
        """Main memory of a job in MB, in addition to that of the images."""
        return 1000

    @property
    def cpu_threads(self) -> int:
        """Torch threads of a job; on a CPU they affect the result."""
        return 1

    def modules(self) -> list[str]:
        """Modules that registries find by name for this captioner; code digests include them."""
        return [CAPTIONERS.module(self.kind)]

    def places(self) -> list[str]:
        """Files and folders of the user that the captioner reads, as the config has them."""
        return []

    def files(self) -> list[str]:
        """Files of the user that the captioner reads, so that the workflow notices their edits."""
        return []


def parse_captioner(data: Any, key: str = "captioner") -> CaptionerOptions:
    """Parse the settings of a captioner with the model of its `kind`.

    Raises:
        ValueError: the kind is missing or unknown, or a setting is invalid.
    """
    return data if isinstance(data, CaptionerOptions) else parse_kind(CAPTIONER_OPTIONS, data, key)


Captioner = Annotated[SerializeAsAny[CaptionerOptions], BeforeValidator(parse_captioner)]
