"""Image-caption pairs and splits of a dataset, as used by training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cmer.data.frames import EXCLUDED, IMAGES, PROMPTS, VALIDATION, read_frame
from cmer.errors import UserError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """N images and C captions, identified by consecutive ids from 0; the captions of an image have adjacent ids.

    Attributes:
        files: file name of each image.
        sha256: SHA-256 of each image's bytes.
        label_names: the scene classes, sorted.
        labels: [N] index into `label_names`, -1 for images without a label.
        caption_image: [C] image of each caption, ascending.
        texts: [C] captions.
        prompts: [C] captions with their scene label prepended.
        train_images: images to train on, ascending, without validation images.
        val_images: validation images, ascending.
        test_images: test images, ascending.
        official_train: train images before any were moved to validation or excluded, ascending.
    """

    files: list[str]
    sha256: list[str]
    label_names: list[str]
    labels: Ints
    caption_image: Ints
    texts: list[str]
    prompts: list[str]
    train_images: Ints
    val_images: Ints
    test_images: Ints
    official_train: Ints

    @classmethod
    def read(
        cls,
        folder: Path | str,
        captions: Path | str,
        validation: Path | str | None = None,
        excluded: Path | str | None = None,
    ) -> Pairs:
        """Read a prepared dataset.

        Args:
            folder: folder with images.csv.
            captions: the prompted captions (`cmer augment`).
            validation: ids of the validation images (`cmer split`); None: the dataset's own val split.
            excluded: train captions to drop (`cmer exclude`); images whose captions are all excluded are dropped too.

        Raises:
            UserError: a file is missing, the files describe different datasets, or no train caption is left.
        """
        images, texts = read_frame(Path(folder) / "images.csv", IMAGES), read_frame(captions, PROMPTS)
        split = images["split"].to_numpy(copy=True)
        official_train = np.flatnonzero(split == "train")
        if validation is not None:
            split[read_validation(validation, split)] = "val"
        caption_image = texts["image_id"].to_numpy()
        if not np.array_equal(np.unique(caption_image), images["image_id"]) or np.any(np.diff(caption_image) < 0):
            raise UserError(f"{captions} and {folder}/images.csv describe different datasets; run cmer augment again")
        names = sorted(set(images["label"]) - {""})
        pairs = cls(
            files=images["file"].tolist(),
            sha256=images["sha256"].tolist(),
            label_names=names,
            labels=np.array([names.index(label) if label else -1 for label in images["label"]], np.int64),
            caption_image=caption_image,
            texts=texts["caption"].tolist(),
            prompts=texts["prompt"].tolist(),
            train_images=np.flatnonzero(split == "train"),
            val_images=np.flatnonzero(split == "val"),
            test_images=np.flatnonzero(split == "test"),
            official_train=official_train,
        )
        return pairs if excluded is None else pairs._without(excluded)

    def _without(self, excluded: Path | str) -> Pairs:
        given = read_frame(excluded, EXCLUDED)["caption_id"].to_numpy()
        if np.any(given >= len(self.texts)) or not np.isin(self.caption_image[given], self.train_images).all():
            raise UserError(f"{excluded} names captions of val, test or another dataset; run cmer exclude again")
        kept = np.setdiff1d(np.arange(len(self.texts)), given)
        caption_image = self.caption_image[kept]
        if not np.isin(caption_image, self.train_images).any():
            raise UserError(f"{excluded} leaves no caption to train on; shorten the dataset's `exclude`")
        return replace(
            self,
            caption_image=caption_image,
            texts=[self.texts[caption] for caption in kept],
            prompts=[self.prompts[caption] for caption in kept],
            train_images=np.intersect1d(self.train_images, caption_image),
        )

    def subsample(self, count: int | None) -> Pairs:
        """The dataset with a subsample of `count` train images; None keeps all.

        The images are the first ones in a fixed order of the official train images, so seeds differ only by the images
        that their own validation splits take out.
        """
        if count is None or count >= len(self.train_images):
            return self
        order = np.random.default_rng(0).permutation(self.official_train)
        return replace(self, train_images=np.sort(order[np.isin(order, self.train_images)][:count]))

    def captions_of(self, images: Ints) -> Ints:
        """Ids of all captions of these images, image by image in the order given."""
        first = np.searchsorted(self.caption_image, images, side="left")
        last = np.searchsorted(self.caption_image, images, side="right")
        spans = [np.arange(start, stop) for start, stop in zip(first, last, strict=True)]
        return np.concatenate(spans) if spans else np.empty(0, np.int64)


def read_validation(path: Path | str, split: npt.NDArray[np.object_]) -> Ints:
    """Ids of validation images (`cmer split`) of a dataset with these splits.

    Raises:
        UserError: the file is missing, names no image, or names test images or images of another dataset.
    """
    ids = read_frame(path, VALIDATION)["image_id"].to_numpy()
    if not len(ids):
        raise UserError(f"{path} names no image; run cmer split again")
    if np.any(ids >= len(split)) or np.any(split[ids] == "test"):
        raise UserError(f"{path} names test images or images of another dataset; run cmer split again")
    return ids
