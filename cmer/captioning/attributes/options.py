"""Settings of the attributes captioner."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cmer.config.backbones import Backbone
from cmer.config.captioners import CaptionerOptions
from cmer.registry import CAPTIONER_OPTIONS


@CAPTIONER_OPTIONS.register("attributes")
class AttributesOptions(CaptionerOptions):
    """Attributes from fixed banks, chosen by zero-shot scores of a backbone whose towers share a space."""

    backbone: Backbone = Field(description="settings of the backbone, as an entry of `backbones` has them")
    objects: Annotated[int, Field(ge=1, le=20)] = Field(default=3, description="main objects that are named")
    colours: Annotated[int, Field(ge=1, le=5)] = Field(default=2, description="colours that are named")

    @property
    def gpu(self) -> bool:
        """See `CaptionerOptions`."""
        return self.backbone.gpu

    @property
    def memory_mb(self) -> int:
        """See `CaptionerOptions`."""
        return self.backbone.memory_mb

    @property
    def cpu_threads(self) -> int:
        """See `CaptionerOptions`."""
        return self.backbone.threads

    def modules(self) -> list[str]:
        """See `CaptionerOptions`."""
        return [*super().modules(), self.backbone.module()]
