"""How results are made: digests of source code, versions of libraries, and records of commands."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cmer import io
from cmer.errors import UserError
from cmer.io import digest, sha256, write_json

PACKAGE = Path(__file__).parent
NOT_COUNTED = (
    "cmer.config", "cmer.errors", "cmer.io", "cmer.progress", "cmer.provenance", "cmer.registry",
    "cmer.data.cards", "cmer.data.fetch.download", "cmer.data.fetch.dvc",
)  # fmt: skip
"""Modules on which no result depends. The values of configs and cards are part of specs and digests; the other modules
move bytes, look up names, or show progress."""

LIBRARIES = ("torch", "open_clip_torch", "peft", "transformers", "numpy", "pillow", "pandas", "scikit-learn")


@cache
def _source(module: str) -> tuple[str, frozenset[str]] | None:
    """The syntax tree of a module as text, and the modules of its package, or of cmer, that it imports.

    None if there is no such module.
    """
    package, file = module.partition(".")[0], _file(module)
    if not file.is_file():
        return None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.ImportFrom):
            imports |= {str(node.module)} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            imports |= {name.name for name in node.names}
    own = (package, __package__)
    return _text(tree), frozenset(name for name in imports if name.partition(".")[0] in own)


def _file(module: str) -> Path:
    """Path of a module's source, which need not exist.

    Derived from the name: `importlib` would import the parent packages, and with them torch.
    """
    package, *parts = module.split(".")
    if package == __package__:
        folder = PACKAGE
    else:
        found = importlib.util.find_spec(package)
        origin = Path(found.origin) if found and found.origin else Path(package)
        if not parts:
            return origin
        folder = origin.parent
    path = folder.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")


def _text(node: Any) -> str:
    """A syntax tree as text that is the same under every version of Python.

    `ast.dump` is not: later versions of Python add fields and omit others. Empty fields are therefore left out.
    """
    if isinstance(node, ast.AST):
        fields = {name: getattr(node, name, None) for name in node._fields}
        kept = {name: value for name, value in fields.items() if value is not None and value != []}
        return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in kept.items())})"
    return f"[{', '.join(map(_text, node))}]" if isinstance(node, list) else repr(node)


def code_digest(*modules: str) -> str:
    """Digest of the sources of these modules and of all modules of their package, and of cmer, that they import.

    Comments, docstrings, formatting, the version of Python and the modules in `NOT_COUNTED` do not change it. Modules
    that a registry finds by name are not imports: list them in `modules`.

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
        if source is not None and module not in seen and not _not_counted(module):
            seen[module] = source[0]
            waiting.extend(source[1])
    return digest(seen)


def _not_counted(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in NOT_COUNTED)


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

    Outputs are the files that the block wrote, with their SHA-256. The peak memory is that of the largest process. The
    block may add entries to the yielded mapping. Records differ from run to run, so they are stored apart from the
    results, whose bytes depend only on spec and seed.
    """
    facts: dict[str, Any] = {}
    start, clock, before = time.time(), time.perf_counter(), len(io.written)
    commit = _commit() if path is not None else ""  # of the code that runs; hours later there may be another
    yield facts
    if path is not None:
        import resource

        peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        write_json(
            path,
            facts
            | {
                "command": [Path(sys.argv[0]).name.replace("__main__.py", "cmer"), *sys.argv[1:]],
                "commit": commit,
                "host": platform.node(),
                "outputs": {str(file): sha256(file) for file in io.written[before:] if file.is_file()},
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
                "seconds": round(time.perf_counter() - clock, 2),
                "peak_memory_mib": round(peak_kib / 1024),
                "versions": versions(),
            },
        )


def _commit() -> str:
    """Commit of the checkout that contains the package, with "-dirty" if the package has uncommitted changes.

    "unknown" if the package is in no checkout, or git is not installed.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(PACKAGE), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            return ""

    if not git("ls-files", Path(__file__).name):  # installed, perhaps below somebody else's checkout
        return "unknown"
    return git("rev-parse", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "--", "."))


def sealed_metadata(record: dict[str, Any]) -> dict[str, str]:
    """Metadata of a safetensors file that holds a record, before `seal` enters the checksum.

    It has a single entry, because safetensors writes several in random order.
    """
    return {"record": json.dumps(record | {"file_sha256": _UNSEALED}, sort_keys=True)}


def seal(content: bytes) -> bytes:
    """The content of a safetensors file with `sealed_metadata`, with its SHA-256 in place of the zeros."""
    return content.replace(_entry(_UNSEALED), _entry(hashlib.sha256(content).hexdigest()), 1)


def stored_record(path: Path | str) -> dict[str, Any]:
    """The record within a safetensors file: spec, trainable parameters, images seen, epochs, code, versions, threads.

    Empty if another program wrote the file.

    Raises:
        UserError: the file is missing, or damaged: it is no safetensors file, or its content has another checksum.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
        if "record" not in metadata:
            return {}
        found: Any = io.parse_json(metadata["record"], f"the record in {path}")
        checksum = found.pop("file_sha256", None) if isinstance(found, dict) else None
        if not isinstance(checksum, str):
            raise ValueError("its record has no checksum")
        whole = Path(path).read_bytes().replace(_entry(checksum), _entry(_UNSEALED), 1)
        if hashlib.sha256(whole).hexdigest() != checksum:
            raise ValueError("its checksum differs")
        return dict(found)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, SafetensorError, ValueError, UserError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and rerun the command that wrote it") from None


_UNSEALED = "0" * 64


def _entry(checksum: str) -> bytes:
    """The checksum within the record, whose quotation marks are escaped in the header."""
    return rf"\"file_sha256\": \"{checksum}\"".encode()
