"""Files from the web: resumed where they broke off, checked, and kept until they are needed again."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from cmer.data.fetch.copies import SourceError
from cmer.io import digest, locked, sha256
from cmer.progress import progress

LOG = logging.getLogger(__name__)

DOWNLOADS = Path("work/downloads")
ATTEMPTS = 6
"""In a row that gain no byte, before a source is given up."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second attempt, doubled for each further one, and the most."""
PATIENCE = 600.0
"""Seconds that a server may ask us to wait."""
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a byte."""
MIB = 2**20

SHARED_ON_DRIVE = re.compile(r"https?://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:[^#]*&)?id=)([\w-]+)")
PAGE = (
    "it answers with a web page, not with a file: a click-through, or a quota that is used up. Open the link in a "
    "browser, save the file, and give it, sources: [{kind: local, path: <file>}]"
)


class _Interrupted(Exception):
    """A fault that may pass. `wait`: seconds that the server asks for."""

    def __init__(self, reason: object, wait: float = 0.0) -> None:
        super().__init__(str(reason))
        self.wait = wait


@contextmanager
def downloaded(url: str, checksum: str | None) -> Iterator[Path]:
    """The file of a URL, fetched unless it is there; a link to share a file of Google Drive is one too.

    Where nobody has published a checksum, a file that the block finds broken is deleted, so that it is fetched anew.

    Raises:
        SourceError: it cannot be had, or is not the file with that SHA-256.
    """
    path = DOWNLOADS / _name(url)
    try:
        with locked(path.with_name(f"{path.name}.lock")):
            if not path.is_file():
                _download(direct(url), path)
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
    """The address of the file itself where `url` is a link to share a file of Google Drive; else `url`."""
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
        raise SourceError(f"its SHA-256 is {found}, not {checksum} as it should be; what was fetched is deleted")


def _download(url: str, path: Path) -> None:
    """Fetch `url` into `path`, by way of `path`.part, which the next call continues."""
    part = path.with_name(f"{path.name}.part")
    most, vain = 0, 0
    while True:
        try:
            _continue(url, part)
            break
        except _Interrupted as fault:
            size = part.stat().st_size if part.exists() else 0
            vain = 1 if size > most else vain + 1
            most = max(most, size)
            if vain == ATTEMPTS:
                raise SourceError(f"{fault}; given up after {ATTEMPTS} attempts in vain") from None
            wait = fault.wait or min(FIRST_WAIT * 2 ** (vain - 1), LONGEST_WAIT)
            LOG.warning("%s: %s; again in %.0f s", url, fault, wait)
            time.sleep(wait)
    part.replace(path)
    _validator(part).unlink(missing_ok=True)


def _continue(url: str, part: Path) -> None:
    """Fetch what `part` lacks, or all where the server does not continue or has another file by now."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if _validator(part).exists():
            headers["If-Range"] = _validator(part).read_text()
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            whole = re.fullmatch(rf"bytes (?:\*|{start}-\d+)/(\d{{1,18}})", answer.headers.get("Content-Range", ""))
            if answer.status_code == 416 and whole and int(whole[1]) == start:
                return
            if answer.status_code == 416 or (answer.status_code == 206 and not whole):
                part.unlink(missing_ok=True)
                raise _Interrupted("the server does not continue what it began")
            _refuse(answer)
            _write(answer, part, start if whole else 0, int(whole[1]) if whole else _length(answer))
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        raise _Interrupted(getattr(error.args[0], "reason", error.args[0])) from None  # of several that wrap it
    except requests.RequestException as error:
        raise SourceError(str(error)) from None


def _refuse(answer: requests.Response) -> None:
    """Raise unless the answer is a file."""
    status = answer.status_code
    fault = f"the server answers {status} {answer.reason}"
    if status in (408, 429) or status >= 500:
        wait = _retry_after(answer.headers.get("Retry-After", ""))
        if wait > PATIENCE:
            raise SourceError(f"{fault} and wants to be asked again in {wait / 60:.0f} minutes")
        raise _Interrupted(fault, wait)
    if status not in (200, 206):
        raise SourceError(fault)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceError(PAGE)


def _retry_after(value: str) -> float:
    """Seconds, given as such or as a date; 0 where neither."""
    try:
        return float(value) if value.isdecimal() else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _length(answer: requests.Response) -> int:
    """Announced length of the body, 0 where none is."""
    length = re.fullmatch(r"\d{1,18}", answer.headers.get("Content-Length", ""))
    return int(length[0]) if length else 0


def _write(answer: requests.Response, part: Path, start: int, total: int) -> None:
    """Write the body to `part` from byte `start` on; `total` bytes make the file, 0: unknown."""
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise SourceError(f"it needs {total / MIB:,.0f} MiB; {part.parent.resolve()} has {free / MIB:,.0f} free")
    # One read of the socket at a time: what came before a connection dropped is kept.
    chunks = iter(partial(answer.raw.read1, MIB, decode_content=False), b"")
    first = next(chunks, b"")
    if start == 0 and re.match(rb"\s*<(!doctype\s+)?html", first, re.I):
        raise SourceError(PAGE)
    if start == 0:
        _note_validator(answer, part)
    with part.open("ab" if start else "wb") as file, _bar(part.stem, start, total) as advance:
        for chunk in chain([first], chunks):
            file.write(chunk)
            advance(len(chunk))
    if total and part.stat().st_size != total:
        raise _Interrupted(f"the server sent {part.stat().st_size:,} of {total:,} bytes")


@contextmanager
def _bar(name: str, start: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in MiB that is moved by bytes; none where the total is unknown."""
    if not total:
        yield lambda count: None
        return
    with progress(f"Fetching {name}, MiB", -(-total // MIB), -(-start // MIB)) as done:
        size = start

        def advance(count: int) -> None:
            nonlocal size
            before, size = size, size + count
            if moved := -(-size // MIB) - -(-before // MIB):
                done(moved)

        yield advance


def _validator(part: Path) -> Path:
    """Holds what tells the file that `part` began with from a later one: its strong ETag, or its date."""
    return part.with_name(f"{part.name}.validator")


def _note_validator(answer: requests.Response, part: Path) -> None:
    etag = answer.headers.get("ETag", "W/")
    validator = answer.headers.get("Last-Modified") if etag.startswith("W/") else etag
    if validator:
        _validator(part).write_text(validator)
    else:
        _validator(part).unlink(missing_ok=True)
