"""Which parameters of commands are files, and a check of them before a command does anything."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from cmer.errors import UserError
from cmer.io import expand, regular_size, require_replaceable, resolved

PREPARED = ("images.csv", "captions.csv", "hashes.csv")
FETCHED = ("images.tar", "dataset.json")


@dataclass(frozen=True)
class Reads:
    """Marks a parameter in its annotation: the command reads these files.

    Attributes:
        names: files by their name beside the parameter's path ("" for the path itself, ".x" in place of its suffix), or
            inside it if it is a folder.
    """

    names: tuple[str, ...] = ("",)

    def files(self, path: Path) -> list[Path]:
        """The files that belong to the parameter's value."""
        return [path.with_suffix(name) if name[:1] == "." else path / name if name else path for name in self.names]


class Writes(Reads):
    """Marks a parameter in its annotation: the command writes these files."""


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which first checks the files that its parameters are marked to read and write.

    The command raises `UserError` if a file to read is a folder, pipe or device; if one to write is; or if one to write
    is among those to read, or is to be written twice.
    """
    hints = get_type_hints(command, include_extras=True)
    roles = [
        (name, role)
        for name, hint in hints.items()
        for role in getattr(hint, "__metadata__", ())
        if isinstance(role, Reads)
    ]
    roles.sort(key=lambda each: isinstance(each[1], Writes))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        _check([(name, role, path) for name, role in roles for path in _paths(given[name])], given.get("spec"))
        command(**given)

    return run


def _check(marked: list[tuple[str, Reads, Path]], spec: str | None) -> None:
    """Check paths, those to read before those to write."""
    named = [file for file in _files_in(spec) if os.path.isfile(file)]  # noqa: PTH113 (Path.is_file raises on long text)
    taken = {resolved(file): "the spec" for file in named}
    for name, role, path in marked:
        for file in role.files(path):
            other = taken.get(resolved(file))
            if isinstance(role, Writes):
                require_replaceable(file)
                if other is not None:
                    raise UserError(f"{_option(name)} would overwrite {file}, a file of {other}; choose another one")
            elif other == _option(name):
                raise UserError(f"{other} names {file} twice; give each file once")
            elif os.path.lexists(file):  # commands say how a missing one is made
                regular_size(file)
            taken[resolved(file)] = _option(name)


def _paths(value: Any) -> list[Path]:
    """The paths in a parameter's value; a URL is none."""
    given = value if isinstance(value, list) else [value]
    return [Path(each) for each in given if each is not None and "://" not in str(each)]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _files_in(spec: str | None) -> Iterator[Path]:
    """Paths that a spec may name: every text in it, alone and below the `root` beside or above it."""
    try:
        places = list(_places(json.loads(spec or "null")))
    except (ValueError, RecursionError):  # reported by the command
        return
    for place in places:
        with suppress(UserError):
            yield expand(place)


def _places(data: Any, root: str = "") -> Iterator[str]:
    if isinstance(data, str) and "\0" not in data:
        yield from (data, f"{root}/{data}") if root else (data,)
    elif isinstance(data, dict | list):
        own = data.get("root") if isinstance(data, dict) else None
        inner = own if isinstance(own, str) else root
        for value in data.values() if isinstance(data, dict) else data:
            yield from _places(value, inner)
