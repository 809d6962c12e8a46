"""Reading of settings as YAML 1.2, which has none of the surprises of YAML 1.1.

Snakemake's own reader follows YAML 1.1, in which `no` is false, `1:30` is 90, `010` is 8 and `1e-3` is text, and keeps
the last of several equal keys. Here, `no` and `1:30` are text, `1e-3` is a number, and an error is what the two
versions read differently (a merge key, a number with `_`, an integer with a leading zero), a directive, which could ask
for the other version, and a repeated key. Errors name file and line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node
from ruamel.yaml.scanner import Scanner, ScannerError

from cmer.config.base import ConfigError, require_plain
from cmer.config.plain import merge, shown
from cmer.io import read_text, regular_size

TEMPLATES = "__use_yte__"
"""Key of files that Snakemake renders as templates, with code in them."""
LARGEST_FILE = 2**18
"""Maximum size of a config in bytes; the parser takes up to a minute for as many."""
INTEGER, FLOAT, MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "merge"))
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What the parser raises on tags that do not fit their values, on keys that no mapping can have, and on escapes of
characters that do not exist."""


class _Scanner(Scanner):
    """Finds tokens; any that cannot be read is an error at its line."""

    def fetch_more_tokens(self) -> Any:
        try:
            return super().fetch_more_tokens()
        except UNREADABLE as error:  # as in "\UFFFFFFFF"
            raise ScannerError(None, None, f"cannot be read: {error}", self.reader.get_mark()) from None

    def fetch_directive(self) -> None:
        raise ScannerError(None, None, "directives, such as %YAML, are not supported", self.reader.get_mark())


class _Constructor(SafeConstructor):
    """Builds plain values; any value that cannot be built is an error at its line."""

    def flatten_mapping(self, node: MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == MERGE:
                problem = "merge keys (<<) are not supported; let the run be `based_on` another, or repeat the settings"
                raise ConstructorError(None, None, problem, key.start_mark)

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        if wrong := _wrong_number(node):
            problem = f"{node.value} {wrong}; write it without, or in quotes if it is text"
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except UNREADABLE:  # as in `!!int x`, `!!int ""`, `!!bool x`
            problem = f"{shown(node.value)} cannot be read as {str(node.tag).rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from None


def _wrong_number(node: Node) -> str:
    """What makes a number ambiguous, as readers of YAML disagree about it; empty for all other nodes."""
    if node.tag == INTEGER and re.match(r"[-+]?0\d", str(node.value)):
        return "has a leading zero"
    return "is a number with `_`" if node.tag in (INTEGER, FLOAT) and "_" in node.value else ""


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML document; `what` names it in errors.

    Raises:
        ConfigError: it is not YAML, or a mapping repeats a key; the message names the line. Or it has values that are
            not plain (see `cmer.config.plain`); the message names their keys.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Scanner, reader.Constructor = _Scanner, _Constructor
    try:
        data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = "; ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{what}{line}: {problem[:300]}") from None
    except YAMLError as error:  # a character that YAML forbids
        raise ConfigError(f"{what} is not YAML: {' '.join(str(error).split())[:300]}") from None
    except UNREADABLE as error:
        raise ConfigError(f"{what} is not YAML: {str(error)[:300]}") from None
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    require_plain(data, what)
    return data


def read_settings(files: Sequence[Path | str], entries: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of YAML files; later files, and then `entries`, override earlier ones, key by key.

    Args:
        files: paths of YAML or JSON files.
        entries: `key=value` with a value in YAML.

    Raises:
        UserError: a file cannot be read.
        ConfigError: it is not a mapping in YAML, is larger than `LARGEST_FILE`, or is a template; the message names the
            file.
    """
    merged: dict[str, Any] = {}
    for file in files:
        if (size := regular_size(file)) > LARGEST_FILE:
            raise ConfigError(f"{file} has {size:,} bytes; a config has at most {LARGEST_FILE:,}")
        merged = merge(merged, _mapping(parse_yaml(read_text(file), str(file)), str(file)))
    for entry in entries:
        key, _, value = entry.partition("=")
        merged = merge(merged, {key: parse_yaml(value, f"--config {key}")})
    return merged


def _mapping(data: Any, file: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"{file} has no settings, such as `seeds: [2022]`, but {shown(data)}")
    if TEMPLATES in data:
        raise ConfigError(f"{file} is a template ({TEMPLATES}); write the values themselves, without it")
    return data
