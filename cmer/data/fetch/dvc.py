"""What an earlier fetch wrote, from the DVC cache or remote of a repository: the rescue where links have rotted."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmer.config import ColumnLabels, DvcSource
from cmer.data.fetch.archives import Tar, by_name
from cmer.data.fetch.copies import Copy, SourceError
from cmer.data.fetch.download import DOWNLOADS


@contextmanager
def tracked_copy(source: DvcSource, folder: Path) -> Iterator[Copy]:
    """images.tar and dataset.json as the repository's last commit tracks them, fetched for as long as the block runs.

    Args:
        source: the repository, and the folder in it.
        folder: the one being written; the same folder is looked for in the repository where the source names none.

    Raises:
        SourceError: there is no such repository, it does not track them, its remote cannot be reached, or DVC is not
            installed.
    """
    base = source.repo if Path(source.repo).is_dir() else os.curdir
    path = source.path or os.path.relpath(folder, base)
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as scratch:
        for name in ("images.tar", "dataset.json"):
            _get(source.repo, f"{path}/{name}", Path(scratch) / name)
        tar = Tar(Path(scratch) / "images.tar")
        usable, faults = by_name(tar.members())
        sizes = {name: member.size for name, member in usable.items()}
        yield Copy((Path(scratch) / "dataset.json").read_bytes(), ColumnLabels(), {}, sizes, faults, tar.read)


def _get(repo: str, path: str, target: Path) -> None:
    try:
        from dvc.api import DVCFileSystem  # takes a second
    except ModuleNotFoundError:
        raise SourceError("DVC is not installed; `pip install 'cmer[sharing]'` adds it") from None
    try:
        # A revision, because without one DVC prefers what lies in the working tree.
        files = DVCFileSystem(repo, rev="HEAD")
        checksum = files.info(path).get("md5")
        files.get_file(path, str(target))
    except FileNotFoundError:
        raise SourceError(f"{path} is not tracked there, or is neither in its cache nor in its remote") from None
    except Exception as error:  # DVC lets those of git and of every kind of remote through
        reasons = [str(reason) for reason in (error, error.__cause__) if reason]
        raise SourceError(f"{path} cannot be had: {': '.join(reasons)}") from None
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if checksum not in (None, found):  # which DVC itself leaves open; None: tracked by git alone
        raise SourceError(f"the MD5 of {path} is {found}, not {checksum} as it should be")
