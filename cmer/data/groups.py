"""Groups of images that a drawn split keeps on one side: near-duplicates, and images with the same captions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmer.data.similar import packed, similar_within

Indices = npt.NDArray[np.intp]

LINKED = "images are near-duplicates of another or have the same captions"


def image_groups(images: pd.DataFrame, captions: pd.Series[str]) -> pd.Series[int]:
    """The group of each image: the connected components of the images that are linked.

    Two images are linked if they have the same bytes, if their hashes are similar (`cmer.data.similar`), or if the sets
    of their captions are equal, word for word. One shared caption does not link them if others differ: a tenth of the
    images could then not be separated from the rest. If no class has more than one set of captions, as in class
    folders, the captions say no more than the class and link nothing. (Chosen here, as are the thresholds.)

    Args:
        images: label, sha256 and hash of N images; sha256 and hash are "" for an image that cannot be decoded.
        captions: captions, indexed by the index of their image in `images`; images without captions are allowed.

    Returns:
        for each image, the row of the first image of its group.
    """
    sets = captions.groupby(level=0).agg(frozenset).reindex(images.index)
    rows, columns, _ = similar_within(packed(images["hash"].replace("", "0" * 64)))
    links = [(rows, columns), _equal(images["sha256"].replace("", None))]
    if sets.groupby(images["label"]).nunique().max() > 1:
        links.append(_equal(sets))
    first, second = (np.concatenate(sides) for sides in zip(*links, strict=True))
    return pd.Series(_components(len(images), first, second), images.index)


def kept_together(groups: pd.Series[int], splits: pd.Series[str]) -> tuple[pd.Series[bool], str]:
    """Which images are in a group with others, and whether those stay together: half a sentence.

    Args:
        groups: group of each image.
        splits: split of each image.
    """
    sizes = groups.map(groups.value_counts())
    linked = sizes > 1
    count = f"{groups[linked].nunique():,} groups of up to {sizes.max():,} images"
    if splits.groupby(groups).nunique().max() > 1:
        return linked, f"split all the same, because {count} are too few; name every image's split to keep them apart"
    return linked, f"kept on one side of the split, in {count}"


def _equal(values: pd.Series) -> tuple[Indices, Indices]:
    """Links of each known value to its first occurrence."""
    known = np.flatnonzero(values.notna())
    codes = pd.factorize(values.iloc[known])[0]
    return known, known[np.unique(codes, return_index=True)[1]][codes]


def _components(count: int, first: Indices, second: Indices) -> Indices:
    """[count] smallest member of each one's connected component, given links between `first` and `second`."""
    root = np.arange(count)
    while True:
        lower = root.copy()
        np.minimum.at(lower, first, root[second])
        np.minimum.at(lower, second, root[first])
        lower = lower[lower]
        if np.array_equal(lower, root):
            return root
        root = lower
