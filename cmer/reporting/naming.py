"""How the tables call a run, told from its method and options alone."""

from __future__ import annotations

import re

from cmer.config.methods import MethodOptions


def slug(name: str) -> str:
    """A printed method name as a method of the registry would be called: "CLIP-adapter" → "clip_adapter"."""
    return re.sub(r"[^a-z0-9]+", "_", name.removesuffix("(ours)").lower()).strip("_")


def differences(options: MethodOptions, ignoring: frozenset[str] = frozenset()) -> list[str]:
    """The options in effect that are not the published system's, each as readable text."""
    return [words for name, words in options.differences().items() if name not in ignoring]


def printed_name(method: str, options: MethodOptions, printed: list[str]) -> str:
    """The method as the tables call it: "CMER(ours)" is the printed system alone, "CMER v1" and so on its variants."""
    title = options.variant_title()
    if title is not None:
        return title
    return next((name for name in printed if slug(name) == method), method.replace("_", " ").capitalize())
