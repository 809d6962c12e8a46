"""Runs as a user writes them, and what they expand to: one run per backbone and per value of a sweep."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Self

from pydantic import Field, SerializeAsAny, model_validator

from cmer.config.backbones import Backbone
from cmer.config.base import Model, Name, validate_part
from cmer.config.datasets import Dataset
from cmer.config.methods import MethodOptions, parse_options, parse_options_field
from cmer.config.training import Training
from cmer.registry import METHODS


class RunDefaults(Model):
    """What every run has where it says nothing else; mappings merge key by key."""

    method: str | None = Field(default=None, description="folder of cmer/methods/, or entry point of another package")
    datasets: list[Name] | None = Field(default=None, description="that it trains and is tested on, each by itself")
    backbones: list[Name] | None = Field(default=None, description="one run for each, named {backbone}.{run}")
    options: dict[str, Any] = Field(default={}, description="what differs from the method's defaults")
    training: dict[str, Any] = Field(default={}, description="what differs from the top-level `training`")


class RunEntry(RunDefaults):
    """A run, or several, as a config writes it."""

    based_on: Name | None = Field(default=None, description="another run, whose settings hold where this one has none")
    sweep: dict[str, list[Any]] = Field(
        default={}, description="key such as training.lr → values; one run per combination, named {run}.lr_{value}"
    )


class Run(Model):
    """A method on a backbone, on one or more datasets, for every seed.

    Attributes:
        name: `{backbone}.{run}`; `{run}` alone where the method brings its own towers.
        backbone: None where the method brings its own towers.
        training: complete, `inputs` resolved.
    """

    name: Name
    datasets: list[Name]
    backbone: Name | None
    method: str
    options: SerializeAsAny[MethodOptions]
    training: Training


class RunSpec(Model):
    """One training, complete: what a checkpoint's metadata holds."""

    run: Name
    dataset: Name
    seed: int
    backbone: Backbone | None = None
    method: str
    options: SerializeAsAny[MethodOptions]
    training: Training
    source: Dataset | None = Field(default=None, description="the dataset's settings, for a run that opens images")

    @model_validator(mode="before")
    @classmethod
    def _options_of_the_method(cls, data: Any) -> Any:
        parsed = parse_options_field(data)
        training = parsed.get("training") if isinstance(parsed, dict) else None
        if isinstance(training, dict) and isinstance(parsed.get("options"), MethodOptions):
            inputs = training.get("inputs") or parsed["options"].usual_inputs
            return parsed | {"training": training | {"inputs": inputs}}
        return parsed

    @model_validator(mode="after")
    def _towers_of_one_kind(self) -> Self:
        if self.options.own_towers != (self.backbone is None):
            needs = "brings its own towers: no backbone" if self.options.own_towers else "needs a backbone"
            raise ValueError(f"method {self.method} {needs}")
        return self

    def modules(self) -> list[str]:
        """Modules that registries find for the run by name, to which no import leads: they count for code digests."""
        backbone = [self.backbone.module()] if self.backbone else []
        return [METHODS.module(self.method), *self.options.modules(), *backbone]


def expand_runs(
    entries: Mapping[str, RunEntry], defaults: RunDefaults, training: Training, backbones: list[str]
) -> list[Run]:
    """All runs of a config, in its order.

    Args:
        entries: as written, by name.
        defaults: of all runs.
        training: top-level settings, which a run's own override.
        backbones: names of the config's backbones.

    Raises:
        ValueError: with one sentence per mistake.
    """
    runs: list[Run] = []
    mistakes: list[str] = []
    for name in entries:
        try:
            merged = _merge(defaults.model_dump(exclude_none=True), _inherited(entries, name))
            for suffix, variant in _sweep(f"runs.{name}", merged, entries[name].sweep):
                runs += _runs(name, suffix, variant, training, backbones, entries[name].backbones is not None)
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return runs


def _inherited(entries: Mapping[str, RunEntry], name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entry's settings on top of those of the runs that it is based on."""
    entry, key = entries[name], f"  - runs.{name}.based_on"
    own = entry.model_dump(exclude_none=True, exclude={"based_on", "sweep"})
    if entry.based_on is None:
        return own
    if entry.based_on not in entries:
        raise ValueError(f"{key}: unknown run {entry.based_on!r}; known are {', '.join(entries)}")
    if entry.based_on in (*below, name):
        raise ValueError(f"{key}: {' → '.join((*below, name, entry.based_on))} is a circle")
    return _merge(_inherited(entries, entry.based_on, (*below, name)), own)


def _merge(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `own` on top; mappings merge key by key, everything else is replaced."""
    merged = copy.deepcopy(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _sweep(where: str, run: dict[str, Any], sweep: Mapping[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination of the swept values: the end of its name, and the run's settings."""
    for key, values in sweep.items():
        if not re.fullmatch(r"(options|training)(\.\w+)+", key):
            raise ValueError(f"  - {where}.sweep: {key!r} must name an option or a training key, such as training.lr")
        if not values:
            raise ValueError(f"  - {where}.sweep.{key}: needs at least one value")
    for chosen in product(*sweep.values()):
        suffix, variant = "", run
        for key, value in zip(sweep, chosen, strict=True):
            path = key.split(".")
            suffix += f".{path[-1]}_{str(value).lower()}"
            nested: Any = value
            for part in reversed(path):
                nested = {part: nested}
            variant = _merge(variant, nested)
        yield suffix, variant


def _runs(
    name: str, suffix: str, settings: dict[str, Any], training: Training, backbones: list[str], own_backbones: bool
) -> list[Run]:
    """One run per backbone."""
    where = f"runs.{name}"
    if "method" not in settings:
        raise ValueError(f"  - {where}.method: Field required")
    method = settings["method"]
    try:
        options = parse_options(method, settings["options"], f"{where}.options")
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("  - ") else f"  - {where}.method: {error}") from None
    resolved = _training(where, method, options, training, settings)
    towers = _towers(where, options, settings, backbones, own_backbones)
    datasets = settings.get("datasets", [])
    return [
        validate_part(Run, {"name": f"{tower}.{name}{suffix}" if tower else f"{name}{suffix}", "backbone": tower,
                            "datasets": datasets, "method": method, "options": options, "training": resolved}, where)
        for tower in towers
    ]  # fmt: skip


def _training(
    where: str, method: str, options: MethodOptions, training: Training, settings: dict[str, Any]
) -> Training:
    """The run's training settings: the top-level ones with its own on top; one process where nothing trains."""
    given = training.model_dump() | settings["training"] | ({} if options.trains else {"processes": 1})
    if given["inputs"] == "stored" and options.usual_inputs == "online" and settings.get("datasets"):
        raise ValueError(
            f"  - {where}: {method} trains within the image tower and reads pixels; remove `inputs: stored`"
        )
    given["inputs"] = given["inputs"] or options.usual_inputs
    return validate_part(Training, given, f"{where}.training")


def _towers(
    where: str, options: MethodOptions, settings: dict[str, Any], known: list[str], own: bool
) -> list[str] | list[None]:
    """Names of the run's backbones; a single None where the method brings its own towers."""
    if options.own_towers:
        if own:
            raise ValueError(f"  - {where}.backbones: {settings['method']} brings its own towers; remove this key")
        return [None]
    given: list[str] = settings.get("backbones", [])
    if not given:
        raise ValueError(
            f"  - {where}.backbones: Field required, here or in run_defaults; known are {', '.join(known)}"
        )
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"  - {where}.backbones: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return given
