"""Registries of what a config can name: one file of a package registers one class under the file's name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. A package's files are looked up by name and imported only when they are asked for.

    Args:
        kind: what the entries are, as error messages call them ("method").
        package: the package whose public modules register themselves under their own names.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[Any]], type[Any]]:
        """Class decorator that registers under `name`; a second class of one name is a `ValueError`."""

        def add(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """All names, sorted, without importing anything."""
        spec = importlib.util.find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        files = {module.name for module in pkgutil.iter_modules(folders) if not module.ispkg} if folders else set()
        return sorted((files - {"base"}) | set(self._classes))

    def check(self, name: str) -> None:
        """Raise `ValueError` listing the known names where `name` is not one of them."""
        if name not in self.names():
            raise ValueError(f"unknown {self.kind} {name!r}; known are {', '.join(self.names())}")

    def get(self, name: str) -> type[T]:
        """The class registered under `name`, its module imported if need be; `ValueError` if unknown."""
        self.check(name)
        if name not in self._classes:
            importlib.import_module(f"{self.package}.{name}")
        return self._classes[name]


METHODS: Registry[Any] = Registry("method", "cmer.methods")
BACKBONES: Registry[Any] = Registry("backbone kind", "cmer.backbones")
