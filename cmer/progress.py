"""Text as it is on the terminal, and progress on stderr: a live bar, or a line every few seconds in a log file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LINE_EVERY = 10.0
"""Seconds between two lines where stderr is not a terminal."""


def visible(text: str) -> str:
    """The text with � in place of characters that a terminal may obey instead of showing them."""
    return CONTROL.sub("�", text)


def console(stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints text as it is: brackets and colons in names are not markup or emoji codes."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False)


class Advance(Protocol):
    """Reports `count` more items done, and what to show beside them."""

    def __call__(self, count: int, note: str = "") -> None:
        """Add `count`; `note` replaces the one shown."""


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show the progress of `total` items, `done` of them finished before; yields the `Advance` to call."""
    terminal = console(stderr=True)
    if terminal.is_terminal:
        title, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
        columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
        with Progress(*columns, console=terminal) as bar:
            task = bar.add_task(what, total=total, completed=done, note="")
            yield lambda count, note="": bar.update(task, advance=count, note=note)
    else:
        yield _Lines(what, total, done)


class _Lines:
    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done, self.before = what, total, done, done
        self.start = self.last = time.monotonic()

    def __call__(self, count: int, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= LINE_EVERY or self.done >= self.total:
            self.last = now
            left = (now - self.start) / max(self.done - self.before, 1) * (self.total - self.done)
            console(stderr=True, width=160).print(
                f"{self.what}: {self.done}/{self.total}, {left:.0f} s left  {note}", highlight=False
            )
