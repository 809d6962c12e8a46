"""Command lines of the workflow's steps: the interpreter that runs them, and arguments that are too long for them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from cmer.errors import UserError
from cmer.io import digest, read_text, write_text

LONGEST = 30_000
"""Characters of an argument above which it travels in a file; Linux limits an argument to 131,072 bytes."""
SPELLED_OUT = ("--spec", "--rerank")
"""Options whose arguments may travel in files."""
SPECS = Path("work/specs")
"""Folder of the arguments that travel in files, each under its digest."""
UNSAFE = re.compile(r"[\"$`\\]")
"""Characters that a shell interprets even in double quotes, which Snakemake puts around the path of a long command."""


def check_project(folder: Path) -> None:
    """Raise `UserError` if the project's path contains a character that a shell may interpret."""
    if found := UNSAFE.search(str(folder)):
        raise UserError(f"the path of the project, {str(folder)!r}, contains {found[0]!r}; move or rename the folder")


def shell_prefix() -> str:
    """What precedes every shell command: functions `cmer` and `torchrun`, which start modules with this interpreter.

    The scripts of the same names are not called: a shell reads their first lines, which contain the interpreter's path.
    Braces are doubled, because Snakemake formats the text.
    """
    python = shlex.quote(sys.executable)
    modules = {"cmer": "cmer", "torchrun": "torch.distributed.run"}
    functions = [f'{name}() {{ {python} -P -m {module} "$@"; }};' for name, module in modules.items()]
    return " ".join([*functions, "set -euo pipefail; "]).replace("{", "{{").replace("}", "}}")


def spec_argument(spec: str) -> str:
    """What follows an option of `SPELLED_OUT`: the spec, or @FILE, a file that contains it, if it is too long.

    The file's name is the digest of its content, so another spec is another argument.

    Raises:
        UserError: the file cannot be written.
    """
    if len(spec) <= LONGEST:
        return spec
    path = SPECS / f"{digest(spec)}.json"
    if not path.is_file() or read_text(path) != spec:
        write_text(path, spec)
    return f"@{path}"


def spelled_out(words: list[str]) -> list[str]:
    """The words of a command line, with the content of the file in place of @FILE after an option of `SPELLED_OUT`.

    Raises:
        UserError: the file cannot be read.
    """
    given = zip(["", *words], words, strict=False)
    return [read_text(word[1:]) if option in SPELLED_OUT and word[:1] == "@" else word for option, word in given]
