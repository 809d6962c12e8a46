"""The folder of an experiment's results, and names of its files: checked before a rule runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from cmer.errors import UserError
from cmer.io import expand

SOURCES = (
    "cmer", "config", "container", "docs", "logs", "profiles", "published", "scripts", "tests", "venv", "work",
    "workflow",
)  # fmt: skip
"""Folders of the project that contain other files than results."""
SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")
"""Folders of the machine that belong to its operating system."""
ALLOWED = re.compile(r"(?!-)[\w.,@+=~ /-]+")
"""Characters of a path that have no meaning for Snakemake or a shell."""
LONGEST = 200
"""Maximum length of a path in bytes; the operating system limits each of its parts, to which suffixes are added."""


def results_folder(results: str) -> str:
    """The normalised path of a results folder: relative to the project if it is inside, otherwise absolute.

    Raises:
        ValueError: an environment variable is not set, or the folder cannot be used for results.
    """
    try:
        path = Path(os.path.normpath(expand(results)).replace("//", "/"))
    except UserError as error:
        raise ValueError(str(error)) from None
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    if reason := _misnamed(path) or _not_its_own(path, Path(os.path.realpath(path)), Path.cwd().resolve()):
        raise ValueError(f"{str(path)[:LONGEST]!r} {reason}")
    return str(path)


def _misnamed(path: Path) -> str:
    """What is wrong with the name of a folder; empty if nothing is."""
    if not ALLOWED.fullmatch(str(path)):
        return "contains other characters than letters, digits, spaces and . , _ - + = @ ~ or begins with -"
    if len(os.fsencode(path)) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if any(part != part.strip() for part in path.parts):
        return "has a space at the start or end of a name"
    return ""


def _not_its_own(path: Path, real: Path, project: Path) -> str:
    """What else is or may be where a folder of results would be; empty if nothing is.

    Args:
        path: the folder.
        real: the same without links.
        project: the project's folder without links.
    """
    inside = real.relative_to(project).parts if real.is_relative_to(project) else None
    if inside == () or path.parts[:1] == ("..",) or any(part.startswith(".") for part in inside or ()):
        return "is not a visible folder inside the project; give its name, or an absolute path"
    if inside:
        shared = inside[0] in SOURCES
    else:
        home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111 (Path's raises without a home)
        shared = any(Path(own).is_relative_to(real) for own in (project, home))
        shared |= len(real.parts) < 3 or real.parts[1] in SYSTEM
    if shared:
        return "contains other files of the project or machine; give a folder of its own, such as results/mine"
    if any(os.path.lexists(folder) and not folder.is_dir() for folder in (path, *path.parents)):
        return "is a file or inside one, or a pipe, device or broken link; give a folder"
    return ""


def is_within(place: str, results: str) -> bool:
    """Whether a user's folder or file is inside the results folder, where the workflow deletes and overwrites files."""
    try:
        return Path(os.path.realpath(expand(place))).is_relative_to(os.path.realpath(results))
    except (UserError, OSError, ValueError):  # reported where the place is read
        return False


AMBIGUOUS = {
    "backbones": re.compile("own_towers"),  # profile of methods without a backbone
    "datasets": re.compile(r"leaks\..+|.+\.queries"),  # files in data/, and of other datasets in captions/
    "tables": re.compile("validation"),
}
"""Names, by section of the config, whose files another rule or another name writes."""

Results = Annotated[str, AfterValidator(results_folder)]
