"""Published datasets, fetched: from a folder or an archive, the Hugging Face hub, the web, or a DVC remote.

Every source gives a `Copy`; every copy becomes images.tar and dataset.json, the same bytes for the same content.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cmer.config.datasets import PublishedDataset
from cmer.config.sources import DvcSource, HubSource, LocalSource, Source, UrlSource
from cmer.data.cards import Card, card
from cmer.data.fetch.archives import copy_in, open_archive
from cmer.data.fetch.copies import Copy, SourceError, pack
from cmer.data.fetch.download import downloaded
from cmer.data.fetch.dvc import tracked_copy
from cmer.data.fetch.hub import hub_copy
from cmer.data.layout import expand
from cmer.errors import UserError


@dataclass(frozen=True)
class Fetched:
    """What a fetch gave.

    Attributes:
        source: where the dataset came from.
        skipped: the sources before it, each with the reason why it did not give the dataset.
        warnings: what the copy lacks.
    """

    source: str
    skipped: list[str]
    warnings: list[str]


def fetch_dataset(options: PublishedDataset, folder: Path | str) -> Fetched:
    """Write images.tar and dataset.json into `folder`, from the first source that gives the dataset.

    The images are those that the annotation file names, in its order; labels follow the dataset's card.

    Raises:
        UserError: no source gives it (the reason of each is told, and what to do by hand), or the folder cannot be
            written.
    """
    known = card(options.source)
    skipped: list[str] = []
    for source in known.sources if options.sources is None else options.sources:
        try:
            with _opened(source, known, Path(folder)) as copy:
                warnings = pack(copy, options.source, folder)
        except SourceError as error:
            skipped.append(f"{_named(source)}: {error}")
        except OSError as error:  # of temporary files: those of sources and results have become sentences already
            raise UserError(f"{_named(source)}: {error}; free space, or set TMPDIR to where there is some") from None
        else:
            return Fetched(_named(source), skipped, warnings)
    reasons = "\n".join(f"  - {reason}" for reason in skipped)
    raise UserError(f"no source gives {options.title}:\n{reasons}\n{known.by_hand}")


@contextmanager
def _opened(source: Source, known: Card, folder: Path) -> Iterator[Copy]:
    match source:
        case LocalSource():
            yield copy_in(open_archive(_existing(source.path)), known)
        case HubSource():
            yield hub_copy(source, known)
        case UrlSource():
            with downloaded(source.url, source.sha256) as path:
                yield copy_in(open_archive(path), known)
        case DvcSource():
            with tracked_copy(source, folder) as copy:
                yield copy


def _existing(path: str) -> Path:
    try:
        expanded = expand(path)
    except UserError as error:
        raise SourceError(str(error)) from None
    if not expanded.exists():
        raise SourceError(f"{expanded} does not exist")
    return expanded


def _named(source: Source) -> str:
    match source:
        case LocalSource():
            return source.path
        case HubSource():
            return f"{source.repo} on the Hugging Face hub"
        case UrlSource():
            return source.url
        case DvcSource():
            return f"DVC remote of {source.repo}"
