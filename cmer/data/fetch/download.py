"""Downloads from the web: they resume after interruptions, are verified, and are kept for later calls."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError

from cmer.data.fetch.archives import SourceError
from cmer.io import digest, locked, sha256
from cmer.progress import progress

LOG = logging.getLogger(__name__)

DOWNLOADS = Path("work/downloads")
ATTEMPTS = 6
"""Number of consecutive attempts without progress after which a source is given up."""
GIVEN_UP = f"; given up after {ATTEMPTS} attempts without progress"
LONGEST_WAIT, PATIENCE = 60.0, 600.0
"""Maximum wait before another attempt in seconds: by default, and if the server requests a wait."""
TIMEOUT = (10.0, 60.0)
"""Timeouts in seconds: to connect, and between two bytes."""
MIB = 2**20

SHARED_ON_DRIVE = re.compile(r"https?://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:[^#]*&)?id=)([\w-]+)")
PAGE = (
    "the server sends a web page instead of a file: a click-through page or a quota notice. Open the link in a "
    "browser, save the file, and use it as the source, sources: [{kind: local, path: <file>}]"
)


class _Retries(Retry):
    """urllib3's retries with a log message for every wait, and with a limit on waits."""

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait as long as the server requests; otherwise 1 s before the second attempt, doubled for each further one.

        Raises:
            SourceError: the server requests a wait longer than `PATIENCE`.
        """
        past = self.history[-1]
        fault = past.error or f"the server answers {past.status}"
        asked = self.get_retry_after(response) if response else None
        if asked and asked > PATIENCE:
            raise SourceError(f"{fault} and requests a wait of {asked / 60:.0f} minutes")
        wait = asked or min(2.0 ** (len(self.history) - 1), LONGEST_WAIT)
        LOG.warning("%s: %s; retrying in %.0f s", past.url, fault, wait)
        time.sleep(wait)


RETRIES = _Retries(ATTEMPTS - 1, status_forcelist={408, 429, *range(500, 600)}, raise_on_status=False)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder inside the downloads folder, deleted when the block ends."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as folder:
        yield Path(folder)


@contextmanager
def downloaded(url: str, checksum: str | None) -> Iterator[Path]:
    """The file at a URL, downloaded unless it already was; the URL can also be a Google Drive sharing link.

    If there is no checksum, the file is deleted when the block raises `SourceError`, so that the next call downloads it
    again.

    Raises:
        SourceError: the file cannot be downloaded, or does not have this SHA-256.
    """
    path = DOWNLOADS / _name(url)
    try:
        with locked(path.with_name(f"{path.name}.lock")):
            if not path.is_file():
                part = path.with_name(f"{path.name}.part")
                _download(direct(url), part)
                part.replace(path)
                _validator(part).unlink(missing_ok=True)
            _check(path, checksum)
    except OSError as error:
        raise SourceError(f"cannot write {path}: {error.strerror or error}; free space there") from None
    try:
        yield path
    except SourceError:
        if checksum is None:
            path.unlink(missing_ok=True)
        raise


def direct(url: str) -> str:
    """The URL of the file itself if `url` is a Google Drive sharing link, otherwise `url`."""
    shared = SHARED_ON_DRIVE.match(url)
    return f"https://drive.usercontent.google.com/download?id={shared[1]}&export=download&confirm=t" if shared else url


def _name(url: str) -> str:
    shared = SHARED_ON_DRIVE.match(url)
    name = shared[1] if shared else PurePosixPath(unquote(urlsplit(url).path)).name
    return f"{digest(url)[:8]}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-100:]}"


def _check(path: Path, checksum: str | None) -> None:
    found = sha256(path) if checksum else None
    if found != checksum:
        path.unlink()
        raise SourceError(f"its SHA-256 is {found}, not {checksum}; the download was deleted")


def _download(url: str, part: Path) -> None:
    """Download the missing rest of `part` from `url`, so that a call resumes what a killed one left."""
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRIES))
        try:
            _complete(session, url, part)
        except (requests.ConnectionError, MaxRetryError) as error:
            fault = error if isinstance(error, MaxRetryError) else error.args[0]
            raise SourceError(f"{getattr(fault, 'reason', fault)}{GIVEN_UP}") from None
        except requests.RequestException as error:
            raise SourceError(str(error)) from None


def _complete(session: requests.Session, url: str, part: Path) -> None:
    """Request the rest of the file until `part` is complete; the session itself retries requests without response."""
    retries, longest = RETRIES, 0
    while True:
        try:
            return _continue(session, url, part)
        except HTTPError as fault:
            size = _size(part)
            retries = (RETRIES if size > longest else retries).increment("GET", url, error=fault)
            longest = max(longest, size)
            retries.sleep()


def _continue(session: requests.Session, url: str, part: Path) -> None:
    """Download the rest of `part`, or the whole file if the server does not resume or the file has changed.

    Raises:
        HTTPError: the response is incomplete, or does not match the existing part.
    """
    start = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if _size(_validator(part)):
            headers["If-Range"] = _validator(part).read_text()
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        status = answer.status_code
        whole = re.fullmatch(rf"bytes (?:\*|{start}-\d+)/(\d{{1,18}})", answer.headers.get("Content-Range", ""))
        if status == 416 and whole and int(whole[1]) == start:
            return
        if status == 416 or (status == 206 and not whole):
            part.unlink(missing_ok=True)
            raise ProtocolError("the server does not resume the download")
        if status not in (200, 206):
            raise SourceError(
                f"the server answers {status} {answer.reason}{GIVEN_UP * RETRIES.is_retry('GET', status)}"
            )
        _write(answer, part, start if whole else 0, int(whole[1]) if whole else answer.raw.length_remaining or 0)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write(answer: requests.Response, part: Path, start: int, total: int) -> None:
    """Write the body to `part` from byte `start` on; `total` is the size of the file in bytes, 0 if unknown."""
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise SourceError(f"it needs {total / MIB:,.0f} MiB; {part.parent.resolve()} has {free / MIB:,.0f} MiB free")
    # One read of the socket at a time, so that everything received before a connection drops is kept.
    chunks = iter(partial(answer.raw.read1, MIB, decode_content=False), b"")
    first = next(chunks, b"")
    page = start == 0 and re.match(rb"\s*<(!doctype\s+)?html", first, re.I)
    if page or answer.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceError(PAGE)
    if start == 0:
        etag = answer.headers.get("ETag", "W/")
        _validator(part).write_text(answer.headers.get("Last-Modified", "") if etag.startswith("W/") else etag)
    shown = _mib(start)
    bar = progress(f"Fetching {part.stem}, MiB", _mib(total), shown) if total else nullcontext(lambda count: None)
    with part.open("ab" if start else "wb") as file, bar as advance:
        for chunk in chain([first], chunks):
            file.write(chunk)
            if (done := _mib(file.tell())) > shown:
                advance(done - shown)
                shown = done
    if total and _size(part) != total:
        raise ProtocolError(f"the server sent {_size(part):,} of {total:,} bytes")


def _mib(count: int) -> int:
    """Bytes in MiB, rounded up."""
    return -(-count // MIB)


def _validator(part: Path) -> Path:
    """The file with the validator that detects a changed file on the server: strong ETag, date, or nothing."""
    return part.with_name(f"{part.name}.validator")
