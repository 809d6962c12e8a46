"""Registries of everything that a config names: each entry is a module of cmer or of an installed package."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name. The module that registers an object is imported when the object is first looked up.

    The module of `name` is `{package}.{name}`, or `{package}.{name}.{part}` where an entry is a folder of several
    modules. Installed packages add entries through entry points of the group `{package}`; their value replaces
    `{package}.{name}`.

    Args:
        kind: the word for an entry in error messages ("method").
        package: the package whose modules or folders are the entries.
        part: the module that registers the entry, if entries are folders; empty if they are single modules.
    """

    def __init__(self, kind: str, package: str, part: str = "") -> None:
        self.kind, self.package, self.part = kind, package, part
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an object as `name`; raises `ValueError` if the name is taken."""

        def add(entry: T) -> T:
            if name in self._registered:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._registered[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """All names, sorted, without importing any entry.

        Raises:
            ValueError: two packages give the same name.
        """
        own, added = _modules(self.package, self.part), _entry_points(self.package)
        if doubled := own & set(added):
            raise ValueError(f"{self.kind} {min(doubled)!r} is in cmer and in the entry points of another package")
        return sorted(own | set(added) | set(self._registered))

    def check(self, name: str) -> None:
        """Raise `ValueError`, which lists the known names, if `name` is unknown."""
        if name not in self.names():
            raise ValueError(f"unknown {self.kind} {name!r}; known are {', '.join(self.names())}")

    def module(self, name: str) -> str:
        """Name of the module that registers `name`, without importing it; raises `ValueError` if `name` is unknown."""
        self.check(name)
        added = _entry_points(self.package)
        if name in added:
            base = added[name].value
        elif name in _modules(self.package, self.part):
            base = f"{self.package}.{name}"
        else:  # registered by the running program
            return str(getattr(self._registered[name], "__module__", ""))
        return f"{base}.{self.part}" if self.part else base

    def get(self, name: str) -> T:
        """The object registered as `name`; imports its module if necessary.

        Raises:
            ValueError: the name is unknown, or its module registers something else.
        """
        module = self.module(name)
        if name not in self._registered:
            importlib.import_module(module)
        if name not in self._registered:
            raise ValueError(f"module {module} registers no {self.kind} {name!r}")
        return self._registered[name]


@cache
def _modules(package: str, part: str) -> frozenset[str]:
    """Names of the package's entries: its modules, or its folders that have the module `part`."""
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else Path(package)
    files = folder.glob(f"*/{part}.py") if part else folder.glob("[!_]*.py")
    return frozenset(file.parent.name if part else file.stem for file in files)


@cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=group)}


METHOD_OPTIONS: Registry[Any] = Registry("method", "cmer.methods", "options")
"""Settings of methods, and what planning must know of them: imports no torch."""
METHODS: Registry[Any] = Registry("method", "cmer.methods", "model")
BACKBONE_OPTIONS: Registry[Any] = Registry("backbone kind", "cmer.backbones", "options")
"""Settings of backbones; imports no torch."""
BACKBONES: Registry[Any] = Registry("backbone kind", "cmer.backbones", "model")
CAPTIONER_OPTIONS: Registry[Any] = Registry("captioner kind", "cmer.captioning", "options")
"""Settings of captioners; imports no torch."""
CAPTIONERS: Registry[Any] = Registry("captioner kind", "cmer.captioning", "model")
LOSSES: Registry[Any] = Registry("loss", "cmer.losses.batch")
"""Losses of a batch of matching pairs."""
TABLES: Registry[Any] = Registry("table", "cmer.reporting.tables")
RERANKERS: Registry[Any] = Registry("reranker", "cmer.retrieval.rerankers")
FIGURES: Registry[Any] = Registry("figure", "cmer.reporting.figures")
