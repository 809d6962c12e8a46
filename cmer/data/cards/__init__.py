"""What is known of each published dataset: a card a dataset, and the fingerprint that tells the real one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from cmer.config.base import Model, validate
from cmer.config.datasets import LabelRule, card_text
from cmer.config.sources import Source
from cmer.io import read_json

FOLDER = Path(__file__).parent


class Fingerprint(Model):
    """What tells a dataset from a copy with other images, captions or splits.

    Attributes:
        images: number of images of each split.
        captions: number of captions of each split.
        digests: of each split's names and captions, in any order.
        classes: number of images of each class, "" for those without one.
        labels: digest of the names and their classes.
        names: of val and test, the hashes of the images' names, 8 hex digits each, sorted and joined.
        pictures: of a sample of the images, their perceptual hashes by the hashes of their names; empty where no copy
            with images was at hand.
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
        title: as tables print it.
        about: what it shows, in a sentence.
        size: side of an image, pixels.
        splits: who split it, and what its splits lack.
        licence: of images and captions, as far as anybody stated one.
        citation: the paper, with DOI.
        flaws: what every user of it should know.
        annotations: name of the annotation file, in the published layout.
        images: folder of the images beside it.
        labels: where scene labels come from.
        sources: where it can be had, in the order they are tried.
        by_hand: what to do where none of them answers.
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
    return validate(Card, yaml.safe_load(card_text(name)), f"the card of {name}")


@cache
def fingerprint(name: str) -> Fingerprint:
    """The fingerprint of the dataset as its authors published it."""
    path = FOLDER / f"{name}.fingerprint.json"
    return validate(Fingerprint, read_json(path), str(path))
