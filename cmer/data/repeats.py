"""How much of the validation and test splits repeats the train split, which rewards a model that memorises it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cmer.data.leaks import Part, shared_captions, similar_images


@dataclass(frozen=True)
class Repeats:
    """Shares of a split, from 0 to 1, that are also in the train split.

    Attributes:
        split: "val" or "test".
        captions: share of its captions that a train image has as well, word for word.
        caption_sets: share of its images whose set of captions a train image has as well.
        images: share of its images that are near-duplicates of a train image.
    """

    split: str
    captions: float
    caption_sets: float
    images: float

    def __str__(self) -> str:
        """One sentence."""
        captions, sets, images = (f"{100 * share:.1f} %" for share in (self.captions, self.caption_sets, self.images))
        return (
            f"{self.split} repeats {captions} of its captions, the captions of {sets} of its images as a set, and "
            f"{images} of its images (near-duplicates) from train"
        )


def repeats(parts: Sequence[Part]) -> list[Repeats]:
    """What the val and test splits of a dataset repeat of its train split.

    Args:
        parts: the splits of one dataset (`cmer.data.leaks.read_parts`); train is one of them.
    """
    train = next(part for part in parts if part.split == "train")
    known = set(_caption_sets(train))
    return [
        Repeats(
            part.split,
            captions=float(shared_captions(part, train).mean()),
            caption_sets=float(_caption_sets(part).isin(known).mean()),
            images=similar_images(part, train)["image_a"].nunique() / len(part.images),
        )
        for part in parts
        if part is not train
    ]


def _caption_sets(part: Part) -> pd.Series:
    return part.captions.groupby("image_id")["caption"].agg(frozenset)
