"""Local files that settings name, in particular weights, whose names may also be those of a hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmer.io import expand


def is_local(name: str) -> bool:
    """Whether a name of weights is a path of this machine, not a repository on a hub."""
    return name.startswith((".", "/", "~", "$")) or Path(name).exists()


def local_weights(*names: str | None, known: Sequence[str] = ()) -> list[str]:
    """The names that are files of the user, not None and not among the `known` words."""
    return list(dict.fromkeys(name for name in names if name is not None and name not in known))


def files_at(places: Sequence[str]) -> list[str]:
    """The files at these places, with variables expanded: a folder stands for the visible files in it.

    Missing places are returned as they are, so that whoever reads the list reports them.

    Raises:
        UserError: an environment variable is not set.
    """
    found: list[Path] = []
    for place in map(expand, places):
        inside = sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else []
        found += [path for path in inside if not path.name.startswith(".")] or [place]
    return list(map(str, found))
