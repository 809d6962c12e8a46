"""Limits of all settings, whatever their key: plain values of moderate size, before a model sees them.

They hold where no model does as well (options that a method has yet to validate), and keep what follows from running
out of memory, of stack or of time: aliases of YAML can describe a billion values in ten lines.
"""

from __future__ import annotations

import copy
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 20
"""Maximum nesting; the deepest setting of a config has 6 levels."""
MAX_VALUES = 100_000
MAX_CHARACTERS = 10_000
INTEGERS = 2**63
"""Integers are below it in magnitude, as in JSON parsers, arrays and file formats."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Line ends and other control characters, and halves of surrogate pairs, which no file can hold."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A short representation of any value for an error message."""
    huge = isinstance(value, int) and abs(value) >= INTEGERS
    return f"an integer of {value.bit_length():,} bits" if huge else _SHORT.repr(value)


def mistakes(data: Any) -> Iterator[str]:
    """One sentence, with its key, for every value or key in `data` that no setting can have.

    Args:
        data: mappings with text as keys, lists, text, numbers, true, false and null; anything else is a mistake.
    """
    open_: list[tuple[str, Any, int]] = [("", data, 0)]
    for _ in range(MAX_VALUES):
        if not open_:
            return
        key, value, depth = open_.pop()
        within = f"{key}." if key else ""
        if wrong := _wrong(value, depth):
            yield f"{key or 'top level'}: {wrong}"
        elif isinstance(value, dict):
            yield from (f"{key or 'top level'}: {wrong}" for name in value if (wrong := _wrong_key(name)))
            open_ += [(f"{within}{_key(name)}", inner, depth + 1) for name, inner in reversed(value.items())]
        elif isinstance(value, list):
            open_ += [(f"{within}{number}", inner, depth + 1) for number, inner in reversed([*enumerate(value)])]
    if open_:
        yield f"top level: more than {MAX_VALUES:,} values"


def _wrong(value: Any, depth: int) -> str:
    """What is wrong with a value by itself; empty if nothing is."""
    match value:
        case dict() | list():
            return f"nested more than {MAX_DEPTH} deep" if depth >= MAX_DEPTH else ""
        case str():
            return _wrong_text(value)
        case bool() | None:
            return ""
        case int():
            return "" if abs(value) < INTEGERS else f"{shown(value)} is too large"
        case float():
            return "" if math.isfinite(value) else f"Input should be a finite number (given: {value})"
        case _:
            return f"{shown(value)} is a {type(value).__name__}; write it in quotes to make it text"


def _wrong_text(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        return f"text of {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed (given: {shown(text)})"
    return f"text with a control character (given: {shown(text)})" if _CONTROL.search(text) else ""


def _wrong_key(key: Any) -> str:
    if not isinstance(key, str):
        return f"the key {shown(key)} is not text; write it in quotes"
    return f"a key is {wrong}" if (wrong := _wrong_text(key)) else ""


def _key(key: Any) -> str:
    """A key within the path of a value, shortened and without control characters."""
    return key if isinstance(key, str) and len(key) <= 80 and not _CONTROL.search(key) else shown(key)


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overridden by `own`: mappings merge key by key, all other values are replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
