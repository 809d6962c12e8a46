"""Pairs of a test image and its caption to look at: given captions, or those that name the smallest things."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cmer.data.pairs import Pairs
from cmer.errors import UserError

TARGETS = (
    *("cars?|vehicles?", "boats?|yachts?", "swimming pools?|pools?", "trucks?|bus|buses", "houses?|villas?"),
    *("tennis courts?|basketball courts?|courts?", "storage tanks?|tanks?", "planes?|airplanes?|aircrafts?", "ships?"),
    *("ponds?", "bridges?"),
)
"""Things from small to large, by their usual length, as patterns of words (chosen here): from 4 m to some 100 m."""
PAIRS = 4
"""Pairs that are shown unless captions are given."""


def given_pairs(pairs: Pairs, queries: Sequence[str]) -> list[int]:
    """Ids of the test captions with these texts, each the first one.

    Raises:
        UserError: a text is no test caption.
    """
    captions = pairs.captions_of(pairs.test_images).tolist()
    return [captions[place] for place in places_of(queries, [pairs.texts[caption] for caption in captions])]


def places_of(queries: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Position of each query among the texts of the test captions; the first of those with the same words.

    Raises:
        UserError: a query is no test caption.
    """
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(_plain(text), place)
    if unknown := [query for query in queries if _plain(query) not in first]:
        raise UserError(f"{unknown[0]!r} is no caption of a test image; give the text of one, such as {texts[0]!r}")
    return [first[_plain(query)] for query in queries]


def smallest_targets(pairs: Pairs) -> list[int]:
    """Ids of `PAIRS` test captions that name the smallest of `TARGETS`, each of another target and another image.

    Captions that several images share are left out; where too few name a target, the first captions of other images
    follow.
    """
    captions = pairs.captions_of(pairs.test_images).tolist()
    times = Counter(_plain(pairs.texts[caption]) for caption in captions)
    unique = [caption for caption in captions if times[_plain(pairs.texts[caption])] == 1] or captions
    chosen: dict[int, int] = {}
    for target in (*TARGETS, *[""] * PAIRS):
        pattern = re.compile(rf"\b({target})\b")
        named = (c for c in unique if pattern.search(_plain(pairs.texts[c])) and pairs.caption_image[c] not in chosen)
        caption = next(named, None)
        if caption is not None and len(chosen) < PAIRS:
            chosen[int(pairs.caption_image[caption])] = caption
    return list(chosen.values())


def _plain(text: str) -> str:
    """Lower-case words, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))
