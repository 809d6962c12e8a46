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
    "cmer", "config", "container", "docs", "logs", "profiles", "published", "scripts", "tests", "work", "workflow",
)  # fmt: skip
"""Folders of the project that contain other files than results."""
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
    if reason := _unusable(path):
        raise ValueError(f"{str(path)[:LONGEST]!r} {reason}")
    return str(path)


def _unusable(path: Path) -> str:
    if not ALLOWED.fullmatch(str(path)):
        return "contains other characters than letters, digits, spaces and . , _ - + = @ ~ or begins with -"
    if len(os.fsencode(path)) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if not path.is_absolute() and (path.parts[:1] in ((), ("..",)) or path.parts[0].startswith(".")):
        return "is not a visible folder inside the project; give its name, or an absolute path"
    if path == Path("/") or path.parts[0] in SOURCES:
        return "contains other files of the project or machine; give a folder of its own, such as results/mine"
    if any(part != part.strip() for part in path.parts):
        return "has a space at the start or end of a name"
    if any(folder.is_file() for folder in (path, *path.parents)):
        return "is a file or inside one; give a folder"
    return ""


def is_within(place: str, results: str) -> bool:
    """Whether a user's folder or file is inside the results folder, where the workflow deletes and overwrites files."""
    try:
        return expand(place).resolve().is_relative_to(Path(results).resolve())
    except (UserError, OSError, ValueError):  # reported where the place is read
        return False


AMBIGUOUS = {
    "backbones": re.compile("own_towers"),  # profile of methods without a backbone
    "datasets": re.compile(r"leaks(\.summary)?\.csv|.+\.queries"),  # files in data/, and of other datasets in captions/
    "tables": re.compile("validation"),
}
"""Names, by section of the config, whose files another rule or another name writes."""

Results = Annotated[str, AfterValidator(results_folder)]
