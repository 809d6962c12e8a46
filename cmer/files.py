"""Files: atomic writes, content hashes, locks, digests of sources, and the record of a run."""

from __future__ import annotations

import ast
import contextlib
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from cmer.registry import UserError

PACKAGE = Path(__file__).parent
NOT_COUNTED = {
    "cmer.config", "cmer.files", "cmer.progress", "cmer.registry",
    "cmer.data.fetch.download", "cmer.data.fetch.dvc",
}  # fmt: skip
"""Modules that no result depends on: a spec holds every value, the others move bytes, find names, show progress."""

_written: list[Path] = []
"""Files that this process wrote, for its record."""

LIBRARIES = ("torch", "open_clip_torch", "peft", "transformers", "numpy", "pillow", "pandas")


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    The data is on disk before the name changes, so a crash leaves the old file or the new one, never half of one.
    What a killed writer of this machine left beside `path` is removed.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        prefix = f"{_prefix(target)}{os.getpid()}."
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _written.append(target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.{platform.node()}."


def _remove_stale(target: Path) -> None:
    for path in target.parent.glob(f"{glob.escape(_prefix(target))}[0-9]*"):
        writer = path.name.removeprefix(_prefix(target)).partition(".")[0]
        try:
            os.kill(int(writer), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:  # another user's process, which lives
            continue


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, data: Any) -> None:
    """Write `data` to `path` atomically, as JSON with sorted keys."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_text(path: Path | str) -> str:
    """The text in `path`: UTF-8, with or without a byte order mark.

    Raises:
        UserError: the file is missing, cannot be read, or is not UTF-8; the line is named.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise UserError(f"{path} is not UTF-8 text: byte 0x{byte:02x} in line {line}; save it as UTF-8") from None


def parse_json(text: str, what: str) -> Any:
    """The value of JSON text; `what` names it in errors.

    Raises:
        UserError: it is not JSON, is nested too deeply, or an object has a key twice: one of the two would be lost.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not valid JSON: {error}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)[:100]!r} appears twice in one object")
    return found


def read_json(path: Path | str) -> Any:
    """The JSON in `path`.

    Raises:
        UserError: as `read_text` and `parse_json`.
    """
    return parse_json(read_text(path), str(path))


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(data: Any) -> str:
    """Hex SHA-256 (32 characters) of `data` as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold an exclusive lock named `path` between processes while the block runs."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path)):
        yield


# --- what a result was made with ----------------------------------------------------------------------


@cache
def _source(module: str) -> tuple[str, frozenset[str]] | None:
    """The AST of a cmer module without docstrings, as text, and the cmer modules that it imports; None if no module.

    The file is found by its path: `importlib` would import the packages above it, and torch with them.
    """
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")
    if not file.is_file():
        return None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cmer"):
            imports |= {str(node.module)} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            imports |= {name.name for name in node.names if name.name.startswith("cmer")}
    return ast.dump(tree), frozenset(imports)


def code_digest(*modules: str) -> str:
    """Digest of the sources of these cmer modules and of all cmer modules that they import.

    Comments, docstrings and layout do not count, nor do the modules of `NOT_COUNTED`. Classes that a registry finds
    by name are not imports: name their modules too.

    Raises:
        ModuleNotFoundError: one of `modules` does not exist.
    """
    missing = [module for module in modules if _source(module) is None]
    if missing:
        raise ModuleNotFoundError(f"no module {', '.join(missing)}")
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        source = _source(module)  # None for `from module import name`, where the name is not a module
        if source is not None and module not in seen and module not in NOT_COUNTED:
            seen[module] = source[0]
            waiting.extend(source[1])
    return digest(seen)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version(), "cmer": importlib.metadata.version("cmer")}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


@contextlib.contextmanager
def recorded(path: Path | str | None) -> Iterator[dict[str, Any]]:
    """Time the block and write its record to `path`: commit, host, command, start, seconds, peak memory, outputs.

    Outputs are the files that the block wrote and left, with the SHA-256 of each; the peak is the largest process's.
    The block may add entries of its own to the yielded mapping. These facts differ from run to run, so they lie apart
    from the artifacts, whose bytes depend on spec and seed alone.
    """
    facts: dict[str, Any] = {}
    start, clock, before = time.time(), time.perf_counter(), len(_written)
    commit = _commit() if path is not None else ""  # of the code that runs; hours later there may be another
    yield facts
    if path is not None:
        import resource

        peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        write_json(
            path,
            facts
            | {
                "command": sys.argv,
                "commit": commit,
                "host": platform.node(),
                "outputs": {str(file): sha256(file) for file in _written[before:] if file.is_file()},
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
                "seconds": round(time.perf_counter() - clock, 2),
                "peak_memory_mib": round(peak_kib / 1024),
                "versions": versions(),
            },
        )


def _commit() -> str:
    """Of the checkout that the package lies in, with "-dirty" where the package differs from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(PACKAGE), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    if not git("ls-files", Path(__file__).name):  # installed, perhaps below somebody else's checkout
        return "unknown"
    return git("rev-parse", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "--", "."))
