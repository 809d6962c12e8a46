"""Settings of single_language."""

from __future__ import annotations

from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("single_language")
class SingleLanguageOptions(TowerOptions):
    """Every weight of both towers trains."""
