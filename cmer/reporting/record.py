"""How a file was made: its own record, and the record of the command that wrote it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table
from rich.text import Text

from cmer.config.base import validate
from cmer.errors import UserError
from cmer.io import parse_json, read_json, resolved, sha256
from cmer.progress import console, visible
from cmer.provenance import stored_record

ABSENT = "unknown: logs/ has no record of the command; `make pull` fetches the records"
RECORDED = (".json", ".safetensors")
"""Formats that can hold a record."""
Logged = tuple[Path, dict[str, Any]]
"""The record of a command, as `cmer.provenance.recorded` writes it, and its path."""
LATER = ("embedding", "evaluation", "heat_maps")
"""Stages that add their code and versions to the record of the training whose output they read."""


class _Code(BaseModel):
    """What every record says of the code that ran."""

    model_config = ConfigDict(extra="allow", strict=True)

    code: str = ""
    versions: dict[str, str] = {}


class _Own(_Code):
    """The record in a file."""

    spec: dict[str, Any] = {}
    features: str = ""
    embedding: _Code | None = None
    evaluation: _Code | None = None
    heat_maps: _Code | None = None


class _Call(_Code):
    """The record of a command, as `cmer.provenance.recorded` writes it."""

    command: list[str]
    commit: str
    host: str
    started: str
    seconds: float
    peak_memory_mib: int
    outputs: dict[Annotated[str, Field(pattern=r"^[^\x00]+$")], str]


@dataclass(frozen=True)
class Provenance:
    """How one file was made.

    Attributes:
        own: the record stored in the file, which depends on neither time nor machine: spec, code, versions, threads;
            for a file without one, the record of another file that the same command wrote.
        call: the record of the command that wrote the file: command line, commit, host, start, seconds, outputs.
        log: path of the file that holds `call`.
        changed: whether the file has changed since the command wrote it.
    """

    own: dict[str, Any]
    call: dict[str, Any]
    log: Path | None
    changed: bool

    @property
    def spec(self) -> dict[str, Any] | None:
        """The spec in the file's own record, or else the one on the command line."""
        spec = self.own.get("spec") or parse_json(self._option("--spec") or "null", "the spec on the command line")
        return spec if isinstance(spec, dict) else None

    @property
    def seed(self) -> str:
        """Seed of the spec (several for a table) or of the command line; empty if nothing was random."""
        spec = self.spec or {}
        seeds = spec.get("seeds", [spec.get("seed", self._option("--seed") or "")])
        return ", ".join(map(str, seeds)) if isinstance(seeds, list) else str(seeds)

    def _option(self, name: str) -> str | None:
        words: list[str] = self.call.get("command", [])
        return words[words.index(name) + 1] if name in words[:-1] else None


def provenance(path: Path, logged: Sequence[Logged] | None = None) -> Provenance:
    """Find out how a file was made.

    Args:
        path: the file.
        logged: records of commands, read before for several files; None: those in logs/ of the file's project.

    Raises:
        UserError: the file is missing, it or its own record is damaged, or neither it nor a record in logs/ says how it
            was made.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    own = _own(path)
    found = sorted(_calls(path, logged), key=lambda each: str(each[1].get("started")))
    log, call = found[-1] if found else (None, {})
    if not own and not call:
        raise UserError(
            f"{path} contains no record, and no record in logs/ lists it: another program or machine made it"
        )
    outputs = {_absolute(path, name): written for name, written in call.get("outputs", {}).items()}
    written = outputs.get(resolved(path))
    changed = written is not None and sha256(path) != written
    return Provenance(own or _of_the_same_call(outputs), call, log, changed)


def _of_the_same_call(outputs: dict[Path, str]) -> dict[str, Any]:
    """The first record stored in another output of the same command that has not changed since."""
    candidates = (file for file in outputs if file.suffix in RECORDED and file.is_file())
    return next(filter(None, (_own(file) for file in candidates if sha256(file) == outputs[file])), {})


def _own(path: Path) -> dict[str, Any]:
    """The record stored in metrics, profiles, feature manifests, checkpoints and embeddings; empty for other files."""
    own: Any = {}
    if path.suffix == ".safetensors":
        own = stored_record(path)
    elif path.suffix == ".json" and isinstance(data := read_json(path), dict):
        own = {key: data[key] for key in ("code", "versions") if key in data}
        if isinstance(data.get("record"), dict):
            own = {"spec": data["spec"], **data["record"]} if "spec" in data else data["record"]
    return validate(_Own, own, f"the record in {path}").model_dump(exclude_unset=True, exclude_none=True)


def _root(path: Path) -> Path | None:
    """The project's folder: the nearest one above the file that has a logs folder, or else the current one."""
    return next((folder for folder in [*resolved(path).parents, Path.cwd()] if (folder / "logs").is_dir()), None)


def _absolute(path: Path, name: str) -> Path:
    return resolved((_root(path) or Path.cwd()) / name)


def _calls(path: Path, logged: Sequence[Logged] | None) -> Iterator[Logged]:
    """Records of commands that wrote the file: the one beside it, and those that list it as an output."""
    beside = path.with_suffix(".record.json")
    if beside.is_file() and beside != path and (call := _call(beside)):
        yield beside, call
    if logged is None:
        root = _root(path)
        logged = read_calls(root / "logs") if root else []
    for log, call in logged:
        if resolved(path) in {_absolute(path, name) for name in call["outputs"]}:
            yield log, call


def read_calls(folder: Path) -> list[Logged]:
    """The records of commands in a folder of logs, by their paths; damaged ones are named on stderr and left out."""
    read = ((log, _call(log)) for log in sorted(folder.rglob("*.record.json")))
    return [(log, call) for log, call in read if call]


def _call(log: Path) -> dict[str, Any]:
    """The record of a command; empty, with a note on stderr, if it is damaged, since other files have other records."""
    try:
        call: dict[str, Any] = read_json(log)
        validate(_Call, call, f"the record {log}")
    except UserError as error:
        console(stderr=True).print(visible(f"skipped a damaged record: {error}"), soft_wrap=True)
        return {}
    return call


def facts(path: Path, found: Provenance) -> dict[str, str]:
    """How a file was made, in words; the spec as YAML."""
    own, call = found.own, found.call
    spec = found.spec or {}
    every = {
        "file": f"{path}{' (changed since the command wrote it)' * found.changed}",
        "run": " on ".join(spec[key] for key in ("run", "dataset") if isinstance(spec.get(key), str)),
        "seed": found.seed,
        "versions": _versions(own) or _versions(call),
        "code": str(own.get("code", "")),
        **{stage: f"code {own[stage].get('code')}, {_versions(own[stage])}" for stage in LATER if stage in own},
        "features": str(own.get("features", "")),
        "commit": str(call.get("commit", ABSENT)),
        "host": call.get("host", ""),
        "time": f"{call['started']}, {call['seconds']} s" if call else "",
        "memory": f"{call['peak_memory_mib']} MiB, the peak of the largest process" if call else "",
        "command": _short(call.get("command", [])),
        "record": os.path.relpath(found.log) if found.log else "",
        "spec": yaml.safe_dump(found.spec, sort_keys=False, allow_unicode=True).rstrip() if found.spec else "",
    }
    return {name: visible(fact) for name, fact in every.items() if fact}


def show(path: Path, found: Provenance) -> None:
    """Print how a file was made, one fact per line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, fact in facts(path, found).items():
        grid.add_row(name, Text(fact))
    console().print(grid)


def _versions(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())


def _short(command: list[str]) -> str:
    """The command as typed, with SPEC in place of the spec, which is printed separately."""
    return shlex.join(
        "SPEC" if option == "--spec" else word for option, word in zip(["", *command], command, strict=False)
    )
