"""Weights of open_clip's models from files: those of the user, and those that a card names."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip.convert import convert_state_dict

from cmer.backbones.open_clip.cards import Card, HubWeights, TagWeights, UrlWeights, card
from cmer.backbones.weights import read_state, reading_weights
from cmer.config.sources import HubSource
from cmer.data.fetch.archives import SourceError, reading
from cmer.data.fetch.download import downloaded, scratch
from cmer.data.fetch.hub import cached
from cmer.errors import UserError

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


def load_file(model: Any, path: str) -> Any:
    """The model with the weights of a file in any of the published layouts.

    Raises:
        UserError: the file is missing or holds no weights, or they are another model's.
    """
    state = read_state(path)
    with reading_weights(path):
        state = convert_state_dict(model, state)  # names of the original MobileCLIP and others to open_clip's
        model.load_state_dict(state)
    return model


def with_preprocessing(model: Any, published: Card) -> Any:
    """The model with the preprocessing of its weights, which open_clip knows for its tags; others have CLIP's."""
    if isinstance(published.weights, TagWeights):
        known = open_clip.get_pretrained_cfg(published.model, published.weights.tag)
        given = {key: known[key] for key in PREPROCESSING if known.get(key) is not None}
        model.visual.preprocess_cfg = model.visual.preprocess_cfg | given
    return model


@contextmanager
def published_file(name: str) -> Iterator[str]:
    """The weight file of a card, fetched unless it already was, until the block ends.

    Raises:
        UserError: the file cannot be fetched or does not have the published checksum; the message says what to do.
    """
    weights = card(name).weights
    try:
        with _file(weights, card(name).model) as path:
            yield str(path)
    except SourceError as error:
        reason = f"cannot fetch {name}, {weights.named()}: {error}"
        raise UserError(f"{reason}; download it on another machine and give the file as `weights`") from None


@contextmanager
def _file(weights: TagWeights | HubWeights | UrlWeights, model: str) -> Iterator[Path]:
    match weights:
        case TagWeights():
            yield _of_tag(model, weights.tag)
        case HubWeights():
            source = HubSource(
                kind="hub", repo=weights.repo, repo_type="model", revision=weights.revision, files=[weights.file]
            )
            yield cached(source, weights.file)
        case UrlWeights():
            with downloaded(weights.url, weights.sha256) as path:
                if weights.member is None:
                    yield path
                    return
                with scratch() as folder:
                    yield _unzipped(path, weights.member, folder)


def _of_tag(model: str, tag: str) -> Path:
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, tag)))
    except Exception as error:  # open_clip passes on exceptions of the hub and of its HTTP library
        raise SourceError(" ".join(str(error).split())) from None


def _unzipped(path: Path, member: str, folder: Path) -> Path:
    """A file of a zip, alone in `folder`, under its last name."""
    target = folder / Path(member).name
    with reading(path), zipfile.ZipFile(path) as file:
        if member not in file.namelist():
            raise SourceError(f"it holds no {member}")
        with file.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return target
