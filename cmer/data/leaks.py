"""Leaks of val and test images: similar images, cross-dataset duplicates (`twins`) and shared captions.

Captions are compared as they are in captions.csv, with normalised white space and in their original case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import pandas as pd

from cmer.config.datasets import Leak
from cmer.data.frames import CAPTIONS, HASHES, IMAGES, read_frame
from cmer.data.pairs import read_validation
from cmer.data.similar import MAX_DISTANCE, packed, similar
from cmer.errors import UserError
from cmer.io import resolved

SPLITS = ("test", "val", "train")
"""Order of splits in a pair: `a` is the image that training should not see."""

DUPLICATE_CAPTIONS = 3
RULES: dict[Leak, str] = {
    "similar_images": f"images whose hashes differ in at most {MAX_DISTANCE} of 255 bits, also if rotated or mirrored",
    "twins": f"images of different datasets that share at least {DUPLICATE_CAPTIONS} distinct captions word for word",
    "shared_captions": "captions in a that another image, in b, also has word for word",
}


@dataclass(frozen=True)
class Part:
    """One split of a dataset, or several splits together.

    Attributes:
        dataset: name of the dataset.
        split: "train", "val", "test", or several of them joined by "+".
        images: table with image_id, file and hash.
        captions: table with caption_id, image_id and caption.
    """

    dataset: str
    split: str
    images: pd.DataFrame
    captions: pd.DataFrame


def read_parts(folder: Path, validation: Path | None = None) -> list[Part]:
    """The non-empty splits of a prepared dataset.

    Args:
        folder: folder with images.csv, captions.csv and hashes.csv.
        validation: ids of the validation images (`cmer split`); None: the dataset's own val split.

    Raises:
        UserError: a file is missing or damaged, or the files do not describe the same dataset.
    """
    images, hashes = read_frame(folder / "images.csv", IMAGES), read_frame(folder / "hashes.csv", HASHES)
    if not images["sha256"].equals(hashes["sha256"]):
        raise UserError(f"{folder}/images.csv and hashes.csv describe different datasets; run cmer prepare again")
    images["hash"] = hashes["hash"]
    if validation is not None:
        images.loc[read_validation(validation, images["split"].to_numpy()), "split"] = "val"
    captions = read_frame(folder / "captions.csv", CAPTIONS)
    parts = []
    for split in SPLITS:
        own = images.loc[images["split"] == split, ["image_id", "file", "hash"]]
        parts.append(Part(resolved(folder).name, split, own, captions[captions["image_id"].isin(own["image_id"])]))
    return [part for part in parts if len(part.images)]


def similar_images(first: Part, second: Part) -> pd.DataFrame:
    """Pairs of similar images: image_a from `first`, image_b from `second`, and their distance in bits."""
    rows, columns, bits = similar(packed(first.images["hash"]), packed(second.images["hash"]))
    if first is second:  # each pair once, and no image paired with itself
        once = rows < columns
        rows, columns, bits = rows[once], columns[once], bits[once]
    a, b = first.images["image_id"].iloc[rows], second.images["image_id"].iloc[columns]
    return pd.DataFrame({"image_a": a.to_numpy(), "image_b": b.to_numpy(), "distance": bits})


def twins(first: Part, second: Part) -> pd.DataFrame:
    """Cross-dataset duplicates: image_a from `first`, image_b from `second`, and the number of shared captions.

    Images of the same dataset are never cross-dataset duplicates.
    """
    a, b = (part.captions[["image_id", "caption"]].drop_duplicates() for part in (first, second))
    shared = a.merge(b, on="caption", suffixes=("_a", "_b")).groupby(["image_id_a", "image_id_b"]).size()
    shared = shared[(shared >= DUPLICATE_CAPTIONS) & (first.dataset != second.dataset)]
    return shared.rename_axis(["image_a", "image_b"]).reset_index(name="captions")


def shared_captions(first: Part, second: Part) -> pd.Series[bool]:
    """Which captions in `first` another image, in `second`, also has."""
    owners = second.captions[["image_id", "caption"]].drop_duplicates()["caption"].value_counts()
    return first.captions["caption"].map(owners).fillna(0) > (first is second)


PAIRS: dict[Leak, Callable[[Part, Part], pd.DataFrame]] = {"similar_images": similar_images, "twins": twins}


def find_leaks(folders: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All leaks between splits and between datasets.

    Args:
        folders: folders of the prepared datasets, each named after its dataset.

    Returns:
        a table with one row per pair of images (kind; dataset, split and file of a and of b; distance or number of
        shared captions), and a summary with one row per kind and pair of splits: the number of affected images or
        captions of a (found) out of all of them (of), the number of pairs of images, and the rule.

    Raises:
        UserError: a dataset is not prepared, or two datasets have the same name.
    """
    parts = [part for folder in _by_name(folders).values() for part in read_parts(folder)]
    parts.sort(key=lambda part: SPLITS.index(part.split))
    pairs, summary = [], []
    for kind, first, second in _image_comparisons(parts):
        found = PAIRS[kind](first, second)
        pairs.append(_with_files(kind, first, second, found))
        counts = {"found": found["image_a"].nunique(), "of": len(first.images), "pairs": len(found)}
        summary.append(_comparison_keys(kind, first, second) | counts)
    for first, second in _caption_comparisons(parts):
        shared = shared_captions(first, second)
        summary.append(_comparison_keys("shared_captions", first, second) | {"found": shared.sum(), "of": len(shared)})
    table = pd.DataFrame(summary).astype({"pairs": "Int64"})
    return _table(pairs), table.assign(rule=table["kind"].map(RULES))


def _by_name(folders: Sequence[Path]) -> dict[str, Path]:
    by_name = {resolved(folder).name: folder for folder in folders}
    if len(by_name) < len(folders):
        raise UserError(f"two datasets have the same name, which is that of their folder: {', '.join(by_name)}")
    return by_name


def _image_comparisons(parts: Sequence[Part]) -> Iterator[tuple[Leak, Part, Part]]:
    for kind in PAIRS:
        for first, second in combinations_with_replacement(parts, 2):
            if kind == "similar_images" or first.dataset != second.dataset:
                yield kind, first, second


def _caption_comparisons(parts: Sequence[Part]) -> Iterator[tuple[Part, Part]]:
    """Pair test and val with themselves, the other splits of their dataset, and the train splits of the others."""
    for number, first in enumerate(parts):
        rest = [part for part in parts[number + 1 :] if part.dataset == first.dataset]
        others = [part for part in parts if part.dataset != first.dataset and part.split == "train"]
        for second in [first, *rest, *_train_and_val(rest), *others] if first.split != "train" else []:
            yield first, second


def _train_and_val(parts: Sequence[Part]) -> list[Part]:
    """Train and val joined into one part, if both exist."""
    if len(parts) < 2:
        return []
    images, captions = (pd.concat([getattr(part, name) for part in parts]) for name in ("images", "captions"))
    return [Part(parts[0].dataset, "train+val", images, captions)]


def _comparison_keys(kind: Leak, first: Part, second: Part) -> dict[str, str]:
    a = {"kind": kind, "dataset_a": first.dataset, "split_a": first.split}
    return a | {"dataset_b": second.dataset, "split_b": second.split}


def _with_files(kind: Leak, first: Part, second: Part, found: pd.DataFrame) -> pd.DataFrame:
    files = {
        f"file_{side}": found[f"image_{side}"].map(part.images.set_index("image_id")["file"])
        for side, part in (("a", first), ("b", second))
    }
    return found.assign(**_comparison_keys(kind, first, second), **files)


def _table(pairs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    names = ["dataset", "split", "file"]
    columns = ["kind", *(f"{name}_{side}" for side in "ab" for name in names), "distance", "captions"]
    found = pd.concat([pd.DataFrame(columns=columns), *(rows for rows in pairs if len(rows))], ignore_index=True)
    return found[columns].astype({"distance": "Int64", "captions": "Int64"})


def excluded(dataset: str, folders: Sequence[Path], validation: Path, leaks: Sequence[Leak]) -> pd.DataFrame:
    """Train captions of a dataset that leak val or test images of this or another dataset.

    These are all captions of a train image that is similar to a val or test image, or a cross-dataset duplicate of one;
    and train captions that a val or test image also has, word for word. Val images are this dataset's validation images
    of one seed and the official val images of the other datasets. Images drawn for validation in other datasets do not
    count, because no run on this dataset is selected on them.

    Args:
        dataset: name of the dataset.
        folders: folders of all prepared datasets, each named after its dataset.
        validation: ids of the dataset's validation images (`cmer split`).
        leaks: kinds of leaks to detect.

    Returns:
        a table with caption_id, image_id and reason: one row per caption and reason, in the order of the captions.

    Raises:
        UserError: a dataset is not prepared, or no folder belongs to `dataset`.
    """
    by_name = _by_name(folders)
    if dataset not in by_name:
        raise UserError(f"no --folder belongs to {dataset}; given are {', '.join(by_name)}")
    own = read_parts(by_name.pop(dataset), validation)
    parts = [*own, *(part for folder in by_name.values() for part in read_parts(folder))]
    found = [
        _leaked_captions(train, held, leak)
        for train in own
        for held in parts
        for leak in leaks
        if train.split == "train" and held.split != "train"
    ]
    columns = pd.DataFrame(columns=["caption_id", "image_id", "reason"])
    return pd.concat([columns, *(rows for rows in found if len(rows))]).sort_values(["caption_id", "reason"])


def _leaked_captions(train: Part, held: Part, leak: Leak) -> pd.DataFrame:
    if leak == "shared_captions":
        lost = shared_captions(train, held)
    else:
        lost = train.captions["image_id"].isin(PAIRS[leak](train, held)["image_a"])
    captions = train.captions.loc[lost, ["caption_id", "image_id"]]
    return captions.assign(reason=f"{leak}: {held.dataset} {held.split}")
