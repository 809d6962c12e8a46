"""Settings of zero_shot."""

from __future__ import annotations

from typing import ClassVar

from cmer.config.methods import MethodOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("zero_shot")
class ZeroShotOptions(MethodOptions):
    """The frozen embeddings, with nothing to configure and nothing to train."""

    trains: ClassVar[bool] = False
