"""Rows of a user's captions, from a .csv with a header or a .jsonl with one object per line."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cmer.errors import UserError
from cmer.io import parse_json, read_text

EXPECTED = "file (or filename), caption and optionally split and label; a .jsonl may have a list captions"


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a .csv as mappings from column to cell, each with its position for error messages.

    Cells are separated by commas; a cell that contains a comma or a (doubled) double quote is in double quotes. Spaces
    after a comma and blank lines are ignored.

    Raises:
        UserError: the file is missing, not UTF-8, not comma-separated CSV, or lacks a column; or a row has too many or
            too few cells.
    """
    lines = csv_lines(path, "check its double quotes", skipinitialspace=True)
    header = [name.strip() for name in next(lines, (0, []))[1]]
    _check_header(path, header)
    for number, cells in lines:
        if cells:
            where = f"{path}: line {number}"
            if len(cells) != len(header):
                raise UserError(
                    f"{where} has {len(cells)} cells, the header has {len(header)}; put captions that contain a comma "
                    "in double quotes"
                )
            yield where, dict(zip(header, cells, strict=True))


def csv_lines(path: Path | str, remedy: str, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """The cells of a .csv, row by row, each with the number of its last line.

    Args:
        path: the file.
        remedy: what to do if it is not CSV, named in the error.
        dialect: parameters of `csv.reader`.

    Raises:
        UserError: the file is missing, not UTF-8, or not CSV.
    """
    csv.field_size_limit(sys.maxsize)  # otherwise captions of more than 131,072 characters are errors
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True, **dialect)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not CSV: {error}; {remedy}") from None


def jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a .jsonl, each with its position for error messages. Blank lines are ignored.

    Raises:
        UserError: the file is missing or not UTF-8; or a line is not a JSON object or lacks a key.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}: line {number}"
            row = parse_json(line, where, halves=True)  # cleaned as other control characters are
            if not isinstance(row, dict):
                raise UserError(f"{where} is not an object; expected the keys {EXPECTED}")
            _check_keys(where, row)
            yield where, row


def _check_header(path: Path, header: list[str]) -> None:
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and sign in header[0]:
            raise UserError(f"{path} is separated by {name}; save it with commas")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path} has more than one column {', '.join(map(repr, twice))}; rename or remove one of them")
    _check_keys(f"{path}: the header", header)


def _check_keys(where: str, keys: Collection[str]) -> None:
    if len({"file", "filename"}.intersection(keys)) != 1 or len({"caption", "captions"}.intersection(keys)) != 1:
        found = ", ".join(repr(key[:40]) for key in list(keys)[:20]) or "nothing"
        raise UserError(f"{where} has {found}; expected {EXPECTED}")
