"""Cards and fingerprints of published datasets; a fingerprint identifies a dataset as its authors published it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cmer.config.base import Model, validate
from cmer.config.datasets import LabelRule, card_settings
from cmer.config.sources import Source
from cmer.io import read_json

FOLDER = Path(__file__).parent


class Fingerprint(Model):
    """Properties that distinguish a dataset from copies with other images, captions or splits.

    Attributes:
        images: number of images in each split.
        captions: number of captions in each split.
        digests: digest of the names and captions in each split, independent of their order.
        classes: number of images in each class, "" for images without a class.
        labels: digest of the names and their classes.
        names: for val and test, the hashes of the images' names, 8 hex digits each, sorted and joined.
        pictures: hash of the name → perceptual hash, for a sample of the images; empty if no images were available.
    """

    images: dict[str, int]
    captions: dict[str, int]
    digests: dict[str, str]
    classes: dict[str, int]
    labels: str
    names: dict[str, str]
    pictures: dict[str, str]


class Card(Model):
    """A published dataset.

    Attributes:
        title: name as printed in tables.
        about: its content in one sentence.
        size: side of an image in pixels.
        splits: who split it, and which splits are missing.
        licence: licence of images and captions, if stated.
        citation: the paper, with DOI.
        flaws: known flaws that every user should be aware of.
        annotations: name of the annotation file, in the published layout.
        images: folder of the images, beside the annotation file.
        labels: where scene labels come from.
        sources: sources to fetch it from, tried in order.
        by_hand: steps of a manual download if all sources fail.
    """

    title: str
    about: str
    size: int
    splits: str
    licence: str
    citation: str
    flaws: list[str]
    annotations: str
    images: str
    labels: LabelRule
    sources: list[Source]
    by_hand: str


@cache
def card(name: str) -> Card:
    """The card of a published dataset: "rsicd", "rsitmd", "ucm" or "sydney"."""
    return validate(Card, card_settings(name), f"the card of {name}")


@cache
def fingerprint(name: str) -> Fingerprint:
    """The fingerprint of the dataset as its authors published it."""
    path = FOLDER / f"{name}.fingerprint.json"
    return validate(Fingerprint, read_json(path), str(path))
