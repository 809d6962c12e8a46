"""Errors of LanceDB and object stores as sentences, and requests that may never be answered."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from cmer.errors import UserError
from cmer.io import REMEDIES

T = TypeVar("T")

AGAIN = "rerun the same command"
OF_LANCE = re.compile(r"lance error|LanceError")
OF_THE_STORE = re.compile("S3|AWS Error|Error performing")
"""In messages of LanceDB and PyArrow about requests; they have no class of their own for such errors."""
OF_THE_SYSTEM = re.compile(r"\(os error (\d+)\)")
"""In LanceDB's messages, the errno of the operating system."""
NO_OBJECT = "Path does not exist"
"""In PyArrow's message about a file that is not in the bucket."""
NEWER = re.compile("[Pp]lease upgrade")
OTHER_COLUMNS = "does not match existing table schema"
"""In LanceDB's messages about tables that a newer version or another schema has written."""
ANSWERS = (
    re.compile(r"<Code>(\w+)</Code>(?:<Message>([^<]*)</Message>)?"),
    re.compile(r"AWS Error ([^\n]+)"),
    re.compile(r"status(?: code)?: (\d+[\w ]*)"),
)
"""What the store answered, in such messages; the first that is found says most."""
WRAPPING = re.compile(r"^.*(?:Wrapped error|Generic [\w/]+ error|LanceError\(\w+\)|lance error): ")
"""What LanceDB's messages say before the reason."""
SOURCE = re.compile(r", /\S+\.rs:\d+.*")
"""Where in LanceDB's source an error occurred, after the reason."""


class StoreError(UserError):
    """An archive cannot be read or written, whatever the request: it is gone, damaged or cannot be reached."""


def answer(message: str) -> str:
    """What the object store answered, from an error of LanceDB or PyArrow."""
    for pattern in ANSWERS:
        if found := pattern.search(message):
            return ": ".join(part.strip() for part in found.groups() if part)[:300]
    return "the object store does not answer"


def of_files(place: object, message: str, exists: Callable[[], bool]) -> StoreError | None:
    """The error to raise for an error of LanceDB about the files of an archive; None if LanceDB did not raise it.

    Args:
        place: where the archive is.
        message: message of LanceDB's error.
        exists: whether archive.json is there.
    """
    if not OF_LANCE.search(message):
        return None
    if found := OF_THE_SYSTEM.search(message):
        number = int(found[1])
        remedy = f"{REMEDIES[number]}, then " if number in REMEDIES else ""
        return StoreError(f"{place}: {os.strerror(number)}; {remedy}{AGAIN}")
    if not exists():
        return gone(place)
    return damaged(place, message)


def gone(place: object) -> StoreError:
    """The error if an archive was removed or replaced while it was in use."""
    return StoreError(f"{place} was removed, or replaced by another archive, in the meantime; {AGAIN}")


def damaged(place: object, message: str) -> StoreError:
    """The error if LanceDB cannot read a table, which may be of another version of LanceDB or of this package."""
    if NEWER.search(message):
        return StoreError(f"{place} was written with a newer LanceDB; upgrade with `pip install --upgrade lancedb`")
    if OTHER_COLUMNS in message:
        reason = "its columns are not those of this version of cmer, or its vectors have another width"
        return StoreError(f"{place} cannot be read: {reason}; index the folder into another --store")
    reason = SOURCE.sub("", WRAPPING.sub("", message.partition("\n")[0]))[:200]
    return StoreError(f"{place} is damaged: {reason}; {AGAIN}, or remove the archive and run `cmer index` again")


def watched(request: Callable[[], T], check: Callable[[], object], patience: float) -> T:
    """The result of a request, which runs in a thread of its own; while it runs, call `check` every `patience` seconds.

    If `check` raises an error, so does this function, and the thread is left behind.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(request())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([result], patience).done:
        check()
    return result.result()
