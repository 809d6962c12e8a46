"""Which printed system a run is, told from its method and options alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from cmer.config import CmerOptions, MethodOptions

VARIANTS = {
    (False, False, False): "v1",
    (True, False, False): "v2",
    (True, True, False): "d1",
    (True, True, True): "d2",
}
"""(focus adapter, negative queue, scene prompt) → name in the CMER paper, Table 4."""

SWITCHES = {"focus_adapter", "queue_batches", "scene_prompt"}
NEEDS: dict[str, Callable[[CmerOptions], bool]] = {
    "lora_rank": lambda o: o.text == "lora",
    "hidden": lambda o: o.focus_adapter or o.text == "side_branch",
    "heads": lambda o: o.focus_adapter or o.text == "side_branch",
    "focus_field": lambda o: o.focus_adapter,
    "focus_dropout": lambda o: o.focus_adapter,
    "focus_drop_path": lambda o: o.focus_adapter,
    "queue_weight": lambda o: o.queue_batches > 0,
    "margin": lambda o: o.queue_batches > 0,
    "difficulty": lambda o: o.queue_batches > 0,
    "label_dropout": lambda o: o.scene_prompt,
}
"""Option of CMER → whether it has any effect."""


def slug(name: str) -> str:
    """A printed method name as a method of the registry would be called: "CLIP-adapter" → "clip_adapter"."""
    return re.sub(r"[^a-z0-9]+", "_", name.removesuffix("(ours)").lower()).strip("_")


def variant(options: MethodOptions) -> str:
    """v1, v2, d1 or d2; "" for another combination of CMER's parts, or another method.

    The printed d2 never drops its prompt: with label dropout it is another system.
    """
    if not isinstance(options, CmerOptions) or (options.scene_prompt and options.label_dropout > 0):
        return ""
    return VARIANTS.get((options.focus_adapter, options.queue_batches > 0, options.scene_prompt), "")


def differences(options: MethodOptions, ignoring: frozenset[str] = frozenset()) -> list[str]:
    """The options in effect that are not the printed system's, each as readable text.

    The printed CMER uses the scene prompt for every training caption. Of the projection, which only backbones that
    the paper does not have need, its kind counts.
    """
    printed = CmerOptions(label_dropout=0.0) if isinstance(options, CmerOptions) else type(options)()
    found = []
    for name in type(options).model_fields:
        value, usual = getattr(options, name), getattr(printed, name)
        switched_off = name in SWITCHES and not value and bool(variant(options))
        if value == usual or switched_off or name in ignoring | {"projection"}:
            continue
        if isinstance(options, CmerOptions) and name in NEEDS and not NEEDS[name](options):
            continue
        found.append(_words(name, value))
    return found + (["mlp heads"] if options.projection.kind == "mlp" else [])


def _words(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {str(value).replace('_', ' ')}"


def printed_name(method: str, options: MethodOptions, printed: list[str]) -> str:
    """The method as the tables call it: "CMER(ours)" is the printed system alone, "CMER v1" and so on its variants."""
    if isinstance(options, CmerOptions) and (differences(options) or variant(options) != "d2"):
        return f"CMER {variant(options)}".strip()
    return next((name for name in printed if slug(name) == method), method.replace("_", " ").capitalize())
