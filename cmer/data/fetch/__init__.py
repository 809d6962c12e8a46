"""Fetching of published datasets from a folder or an archive, the Hugging Face hub, the web, or a DVC remote.

Every source yields the path of a folder or an archive. From there, the same code writes images.tar and dataset.json,
with the same bytes for the same content.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cmer.config.datasets import ColumnLabels, PublishedDataset
from cmer.config.sources import DvcSource, HubSource, LocalSource, Source, UrlSource
from cmer.data.cards import card
from cmer.data.fetch.archives import SourceError
from cmer.data.fetch.copies import pack
from cmer.data.fetch.download import downloaded
from cmer.data.fetch.dvc import tracked
from cmer.data.fetch.hub import from_hub
from cmer.errors import UserError
from cmer.io import expand, regular_size, resolved


@dataclass(frozen=True)
class Fetched:
    """The outcome of a fetch.

    Attributes:
        source: the source that provided the dataset.
        skipped: the sources tried before it, each with the reason why it failed.
        warnings: what is missing from the copy.
    """

    source: str
    skipped: list[str]
    warnings: list[str]


def fetch_dataset(options: PublishedDataset, folder: Path | str) -> Fetched:
    """Write images.tar and dataset.json into `folder`, from the first source that provides the dataset.

    The images are those in the annotation file, in its order; labels follow the rule on the dataset's card.

    Raises:
        UserError: all sources failed (the message gives the reason for each, and the steps of a manual download), or
            the folder cannot be written.
    """
    known = card(options.source)
    skipped: list[str] = []
    for source in known.sources if options.sources is None else options.sources:
        layout = known
        if isinstance(source, DvcSource):  # its files were written by an earlier fetch
            layout = known.model_copy(update={"annotations": "dataset.json", "labels": ColumnLabels()})
        try:
            with _opened(source, layout.annotations, Path(folder)) as path:
                warnings = pack(path, options.source, layout, folder)
        except SourceError as error:
            skipped.append(f"{_named(source)}: {error}")
        except OSError as error:  # from temporary files: errors of sources and of `folder` are UserErrors already
            raise UserError(f"{_named(source)}: {error}; free disk space, or set TMPDIR to another disk") from None
        else:
            return Fetched(_named(source), skipped, warnings)
    reasons = "\n".join(f"  - {reason}" for reason in skipped)
    raise UserError(f"no source provides {options.title}:\n{reasons}\n{known.by_hand}")


def _opened(source: Source, annotations: str, folder: Path) -> AbstractContextManager[Path]:
    """The folder or archive of a source, available until the block ends."""
    match source:
        case LocalSource():
            return nullcontext(_existing(source.path, folder))
        case HubSource():
            return from_hub(source, annotations)
        case UrlSource():
            return downloaded(source.url, source.sha256)
        case DvcSource():
            return tracked(source, folder)


def _existing(path: str, folder: Path) -> Path:
    try:
        expanded = expand(path)
        if not expanded.is_dir() and not regular_size(expanded):  # so claim files of /proc, some of which never end
            raise SourceError(f"{expanded} is empty")
    except UserError as error:
        raise SourceError(str(error)) from None
    if resolved(expanded).is_relative_to(resolved(folder)):
        raise SourceError(f"{expanded} would be overwritten; move it out of {folder}")
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
