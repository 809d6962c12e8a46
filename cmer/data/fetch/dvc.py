"""Output of an earlier fetch, from the DVC cache or remote of a repository: the fallback if links are dead."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmer.config.sources import DvcSource
from cmer.data.fetch.archives import SourceError, open_archive
from cmer.data.fetch.download import scratch


@contextmanager
def tracked(source: DvcSource, folder: Path) -> Iterator[Path]:
    """A folder with the images.tar content and dataset.json of the repository's last commit, until the block ends.

    Args:
        source: the repository, and the folder in it.
        folder: output folder; its path is also the folder in the repository if the source names none.

    Raises:
        SourceError: the repository does not exist or does not track the files, its remote cannot be reached, or DVC is
            not installed.
    """
    base = source.repo if Path(source.repo).is_dir() else os.curdir
    path = source.path or os.path.relpath(folder, base)
    with scratch() as copy:
        for name in ("images.tar", "dataset.json"):
            _get(source.repo, f"{path}/{name}", copy / name)
        _unpack(copy / "images.tar", copy, f"{path}/images.tar")
        yield copy


def _unpack(archive: Path, folder: Path, what: str) -> None:
    """Write all files of an archive into a folder. tarfile's own filter of names needs Python 3.11.4."""
    with open_archive(archive) as members:
        for member in members:
            if member.fault:
                raise SourceError(f"{what} cannot be read: {member.name} {member.fault}")
            file = folder / member.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(member.read())


def _get(repo: str, path: str, target: Path) -> None:
    try:
        from dvc.api import DVCFileSystem  # slow to import
    except ModuleNotFoundError:
        raise SourceError("DVC is not installed; `pip install 'cmer[sharing]'` adds it") from None
    try:
        # Without a revision, DVC would prefer the files in the working tree.
        files = DVCFileSystem(repo, rev="HEAD")
        checksum = files.info(path).get("md5")
        files.get_file(path, str(target))
    except FileNotFoundError:
        raise SourceError(f"{path} is not tracked there, or is neither in its cache nor in its remote") from None
    except Exception as error:  # DVC passes on exceptions of git and of every kind of remote
        reasons = [str(reason) for reason in (error, error.__cause__) if reason]
        raise SourceError(f"{path} cannot be fetched: {', '.join(reasons)}") from None
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if checksum not in (None, found):  # DVC itself does not check; None: tracked by git alone
        raise SourceError(f"the MD5 of {path} is {found}, not {checksum}")
