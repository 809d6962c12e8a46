"""Where an archive is: in a folder, or in a bucket of an object store (S3) that several machines share."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmer.archive.trouble import AGAIN, NO_OBJECT, OF_THE_STORE, StoreError, answer, gone, of_files, watched
from cmer.errors import UserError
from cmer.io import digest, expand, locked, parse_json, read_sealed, sealed, unsealed, write_sealed

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

SETTINGS = "archive.json"
COMMAND = "cmer index"
LOCK = "write.lock"
URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[\w.,=+@~-]+)+/?")
SECONDS = 12.0
"""Longest time that a request for archive.json may take (chosen here), unless AWS_TIMEOUT (such as 300s) sets it."""
ATTEMPTS = 2
"""How often a request for archive.json is made before it fails."""
PATIENCE = 5.0
"""Seconds between checks that the object store still answers, while a request of LanceDB is under way. With `SECONDS`
and `ATTEMPTS`, a store that falls silent is noticed after half a minute."""
TRANSFER = "120s"
"""Longest time that a request of LanceDB may take, such as the upload of a part of 5 MB, unless AWS_TIMEOUT says
otherwise (chosen here). LanceDB's own default of 30 s cuts off ten parts at once on less than 13 Mbit/s."""

T = TypeVar("T")


class Place(ABC):
    """Where an archive is.

    Attributes:
        uri: what LanceDB connects to.
        options: LanceDB's settings of the object store.
        shared: whether other machines may read and write it, so that no file locks it.
    """

    uri: str
    options: dict[str, str]
    shared: bool

    def __str__(self) -> str:
        """As people write it."""
        return self.uri

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is an archive, empty or not."""

    @abstractmethod
    def read_settings(self) -> Any:
        """The content of archive.json.

        Raises:
            UserError: it cannot be read, or is damaged.
        """

    @abstractmethod
    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write archive.json, completely or not at all; raises `UserError` if that fails."""

    @abstractmethod
    def cache(self, key: str) -> Path:
        """The folder of this machine for the vectors of the archive whose id is `key`."""

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Raise `StoreError` in place of an error of LanceDB or the object store while the block runs."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if (told := self._told(str(error))) is None:
                raise
            raise told from None

    def asked(self, request: Callable[[], T]) -> T:
        """The result of a request of LanceDB; raises `StoreError` if the archive cannot be read or written."""
        with self.reached():
            return request()

    def data_files(self) -> set[Path]:
        """Files of the table's data; none of an archive in a bucket."""
        return set()

    def require(self, key: str) -> None:
        """Raise `StoreError` if the archive whose id is `key` is not there any more."""
        if not self.exists() or self.read_settings().get("id") != key:
            raise gone(self)

    def _told(self, message: str) -> StoreError | None:
        """The sentence for an error with this message; None if neither LanceDB nor the object store raised it."""
        return of_files(self, message, self.exists)

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer while the block runs; see `cmer.archive.store.writing`."""


class Folder(Place):
    """A folder of this machine, in which a file is the lock of the writer."""

    shared = False

    def __init__(self, path: Path) -> None:
        self.path, self.uri, self.options = path, str(path), {}

    def exists(self) -> bool:
        """See `Place`."""
        return (self.path / SETTINGS).is_file()

    def read_settings(self) -> Any:
        """See `Place`."""
        return read_sealed(self.path / SETTINGS, COMMAND)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """See `Place`."""
        write_sealed(self.path / SETTINGS, settings, COMMAND)

    def data_files(self) -> set[Path]:
        """See `Place`."""
        return set(self.path.glob("*.lance/data/*"))

    def cache(self, key: str) -> Path:
        """The folder itself: vectors travel with their archive."""
        return self.path

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Place`."""
        path = self.path
        names = {each.name for each in path.iterdir()} if path.is_dir() else {"a file"} if path.exists() else set()
        if not self.exists():
            _require_empty(self, names - {LOCK})
        with locked(path / LOCK, f"another `{COMMAND}` is writing to {path}; wait until it has ended"):
            yield


class Bucket(Place):
    """A prefix in a bucket. Endpoint, region and credentials are those of the usual AWS environment variables.

    No lock reaches other machines. Commits to the table are conditional writes, so none is lost, and a writer that
    another one has overtaken stops at its next commit.
    """

    shared = True

    def __init__(self, url: str) -> None:
        """Raises `UserError` if `url` is not s3://bucket/name."""
        if not URL.fullmatch(url):
            raise UserError(f"{url[:200]} is not an archive's URL, such as s3://bucket/archive.lance")
        self.uri = url.rstrip("/")
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self.options = {"aws_endpoint": self._endpoint} if self._endpoint else {}
        self.options |= {"allow_http": "true"} if self._endpoint.startswith("http://") else {}
        self.options |= {} if {"AWS_TIMEOUT", "TIMEOUT"} & set(os.environ) else {"timeout": TRANSFER}

    def exists(self) -> bool:
        """See `Place`."""
        from pyarrow.fs import FileType

        with self._files() as files:
            return bool(files.get_file_info(self._key(SETTINGS)).type == FileType.File)

    def read_settings(self) -> Any:
        """See `Place`."""
        with self._files() as files, files.open_input_stream(self._key(SETTINGS)) as file:
            text = file.read().decode()
        return unsealed(parse_json(text, f"{self}/{SETTINGS}"), f"{self}/{SETTINGS}", COMMAND)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """See `Place`; S3 replaces an object as a whole."""
        with self._files() as files, files.open_output_stream(self._key(SETTINGS)) as file:
            file.write(sealed(settings, COMMAND).encode())

    def cache(self, key: str) -> Path:
        """A folder in $XDG_CACHE_HOME, by default ~/.cache."""
        root = Path(os.environ.get("XDG_CACHE_HOME") or expand("~/.cache"))
        return root / "cmer" / "archives" / digest([self.uri, key])

    def asked(self, request: Callable[[], T]) -> T:
        """See `Place`; also raised if the object store falls silent."""
        with self.reached():
            return watched(request, self.exists, PATIENCE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Place`; other machines are noticed by what they commit."""
        from pyarrow.fs import FileSelector, FileType

        if not self.exists():
            with self._files() as files:
                if files.get_file_info(self._key("").partition("/")[0]).type == FileType.NotFound:
                    raise self._unreached("there is no such bucket")
                found = files.get_file_info(FileSelector(self._key(""), allow_not_found=True))
            _require_empty(self, {each.base_name for each in found})
        with self.reached():
            yield

    def _key(self, name: str) -> str:
        return f"{self.uri.removeprefix('s3://')}/{name}".rstrip("/")

    @contextmanager
    def _files(self) -> Iterator[S3FileSystem]:
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        given = re.fullmatch("([0-9]+)s", os.environ.get("AWS_TIMEOUT", ""))
        seconds = float(given[1]) if given else SECONDS
        with self.reached():
            yield S3FileSystem(
                endpoint_override=self._endpoint or None,
                connect_timeout=seconds,
                request_timeout=seconds,
                retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
                allow_delayed_open=True,  # a small file is one PUT
            )

    def _told(self, message: str) -> StoreError | None:
        if OF_THE_STORE.search(message):
            return self._unreached(answer(message))
        if NO_OBJECT in message:
            return gone(self)
        return super()._told(message)

    def _unreached(self, reason: str) -> StoreError:
        return StoreError(
            f"{self} cannot be reached: {reason}; check the bucket's name, AWS_ENDPOINT_URL, AWS_REGION and the "
            f"credentials, then {AGAIN}"
        )


def _require_empty(place: Place, names: set[str]) -> None:
    if others := sorted(name for name in names if name[:1] != "."):
        raise UserError(f"{place} is not an archive, but holds {others[0]}; choose another --store")


def place_of(where: Path | str) -> Place:
    """The place at a path, or at a URL such as s3://bucket/archive.lance.

    Raises:
        UserError: it is another kind of URL.
    """
    return Bucket(where) if isinstance(where, str) and "://" in where else Folder(Path(where))
