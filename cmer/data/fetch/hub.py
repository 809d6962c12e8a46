"""Copies on the Hugging Face hub: an archive, or parquet files of filename, captions and image."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq
from huggingface_hub import hf_hub_download
from pyarrow import ArrowException
from pydantic import BaseModel, Field

from cmer.config.base import ConfigError, validate
from cmer.config.sources import HubSource
from cmer.data.fetch.archives import SourceError
from cmer.data.fetch.download import scratch
from cmer.io import sha256

SPLITS = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}
"""Name of a parquet file up to the first hyphen → split."""


class _Image(BaseModel):
    data: bytes = Field(alias="bytes")


class _Row(BaseModel):
    filename: str
    captions: list[str]
    image: _Image

    @property
    def name(self) -> str:
        return PurePosixPath(self.filename).name


@contextmanager
def from_hub(source: HubSource, annotations: str) -> Iterator[Path]:
    """The archive in a repository of the hub, or one created from its parquet files, until the block ends.

    Files are downloaded into huggingface_hub's cache unless they are already there.

    Raises:
        SourceError: a file cannot be downloaded, does not match the hub's checksum, or has another layout.
    """
    parquet = all(file.endswith(".parquet") for file in source.files)
    if not parquet and len(source.files) > 1:
        raise SourceError("`files` must be parquet files, or one archive")
    paths = [cached(source, file) for file in source.files]
    if not parquet:
        yield paths[0]
        return
    with scratch() as folder:
        archive_parquet(paths, annotations, folder / "parquet.tar")
        yield folder / "parquet.tar"


def cached(source: HubSource, file: str) -> Path:
    """A file of a repository in huggingface_hub's cache, downloaded unless it is already there.

    Raises:
        SourceError: the file cannot be downloaded, or does not match the hub's checksum.
    """
    try:
        path = Path(hf_hub_download(source.repo, file, repo_type=source.repo_type, revision=source.revision))
    except Exception as error:  # huggingface_hub passes on exceptions of its HTTP library
        raise SourceError(f"{file}: {' '.join(str(error).split())}") from None
    # The cache links to the content under its ETag, which for large files is their SHA-256.
    checksum = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", checksum) and (found := sha256(path)) != checksum:
        path.resolve().unlink()
        path.unlink()
        raise SourceError(
            f"the SHA-256 of {file} is {found}, not {checksum} as stated by the hub; the download was deleted"
        )
    return path


def archive_parquet(paths: Sequence[Path], annotations: str, target: Path) -> None:
    """Convert a dataset in parquet files (one or more per split, named after the split) to a tar.

    Annotations are sorted by image name, as in RSICD's annotation file; the parquet rows are not in this order.

    Args:
        paths: the parquet files.
        annotations: name of the annotation file in the tar.
        target: the tar.

    Raises:
        SourceError: a file is broken, has the wrong columns, or is not named after a split.
    """
    images = []
    with tarfile.open(target, "w") as tar:
        for path in paths:
            split = SPLITS.get(path.name.split("-")[0].removesuffix(".parquet"))
            if split is None:
                raise SourceError(f"{path.name} is not named after its split, one of {', '.join(SPLITS)}")
            for row in _rows(path):
                sentences = [{"raw": caption} for caption in row.captions]
                images.append({"filename": row.name, "split": split, "sentences": sentences})
                _add(tar, row.name, row.image.data)
        images.sort(key=lambda image: str(image["filename"]))
        _add(tar, annotations, json.dumps({"images": images}).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def _rows(path: Path) -> Iterator[_Row]:
    """All rows of a file, read in batches, because one file can contain all images of a split."""
    try:
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=64, columns=["filename", "captions", "image"]):
                yield from (validate(_Row, row, f"a row of {path.name}") for row in batch.to_pylist())
    except (ArrowException, OSError, ValueError, ConfigError) as error:
        raise SourceError(
            f"{path.name} cannot be read: {str(error)[:300]}"
        ) from None  # it may contain an image's bytes
