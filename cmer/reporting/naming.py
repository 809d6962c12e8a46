"""Names of runs in tables, which depend on method and options only."""

from __future__ import annotations

import re

from cmer.config.methods import MethodOptions


def slug(name: str) -> str:
    """A printed method name in the form that the registry uses: "CLIP-adapter" → "clip_adapter"."""
    return re.sub(r"[^a-z0-9]+", "_", name.removesuffix("(ours)").lower()).strip("_")


def differences(options: MethodOptions, ignoring: frozenset[str] = frozenset()) -> list[str]:
    """The options in effect that differ from the published system, in words."""
    return [words for name, words in options.differences().items() if name not in ignoring]


def printed_name(method: str, options: MethodOptions, printed: list[str]) -> str:
    """Name of a method in the tables: "CMER(ours)" for the printed system only, "CMER v1" and so on for variants."""
    title = options.variant_title()
    if title is not None:
        return title
    return next((name for name in printed if slug(name) == method), method.replace("_", " ").capitalize())
