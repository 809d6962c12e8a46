"""Run entries of a config, and their expansion to one run per backbone and value of a sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny, model_validator

from cmer.config.backbones import Backbone, BackboneOptions
from cmer.config.base import Model, Name, Seed, Several, as_sentences, require_known, validate_part
from cmer.config.captioners import Captioner
from cmer.config.datasets import Dataset
from cmer.config.methods import MethodOptions, parse_options, parse_options_field
from cmer.config.places import files_at
from cmer.config.plain import merge, shown
from cmer.config.reranking import AnyReranker
from cmer.config.training import Training
from cmer.registry import METHOD_OPTIONS, METHODS

MAX_RUNS = 1000
"""Maximum number of runs of a config, after expansion."""
MAX_CHAIN = 20
"""Maximum number of runs that a run is based on, one on another."""
MAX_SCORES = 2**32
"""Maximum number of scores in a training step, which have 16 GiB in float32: the batch against itself and its queue."""


class RunDefaults(Model):
    """Settings that every run inherits unless it overrides them; mappings merge key by key."""

    method: str | None = Field(default=None, description="folder of cmer/methods/, or entry point of another package")
    datasets: Several[Name] | None = Field(
        default=None, description="datasets; the run is trained and tested on each of them separately"
    )
    backbones: Several[Name] | None = Field(
        default=None, description="backbones; each gives a run named {backbone}.{run}"
    )
    options: dict[str, Any] = Field(default={}, description="settings that differ from the method's defaults")
    training: dict[str, Any] = Field(default={}, description="settings that differ from the top-level `training`")


class RunEntry(RunDefaults):
    """An entry under `runs`, which expands to one or more runs."""

    based_on: Name | None = Field(
        default=None, description="another run, whose settings this run inherits unless it overrides them"
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={},
        description="key such as training.lr → values; each combination of values gives a run named {run}.lr_{value}",
    )


class Run(Model):
    """A method on a backbone, on one or more datasets, for every seed.

    Attributes:
        name: `{backbone}.{run}`, or `{run}` if the method brings its own towers.
        backbone: None if the method brings its own towers.
        training: all training settings, with `inputs` resolved.
        reranker: reranker of the scores; None for the run itself.
    """

    name: Name
    datasets: list[Name]
    backbone: Name | None
    method: str
    options: SerializeAsAny[MethodOptions]
    training: Training
    reranker: AnyReranker | None = None

    @model_validator(mode="after")
    def _a_step_fits(self) -> Self:
        _require_bounded_step(self.options, self.training)
        return self


class RunSpec(Model):
    """Complete settings of one training, as stored in the metadata of its checkpoint."""

    run: Name
    dataset: Name
    seed: Seed
    backbone: Backbone | None = None
    method: str
    options: SerializeAsAny[MethodOptions]
    captioner: Captioner | None = Field(
        default=None, description="what wrote the rich texts that a run reads in place of images"
    )
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
            needs = "has its own towers and takes no backbone" if self.options.own_towers else "needs a backbone"
            raise ValueError(f"method {self.method} {needs}")
        if (self.options.rich is None) != (self.captioner is None):
            raise ValueError("captioner: required by methods that read rich texts, and by no others")
        _require_bounded_step(self.options, self.training)
        return self

    def modules(self) -> list[str]:
        """Modules that registries find by name and no import statement reaches; code digests include them."""
        return found_modules(self.method, self.options, self.backbone)

    def weight_files(self) -> list[str]:
        """The user's own files that the towers are read from, with variables expanded."""
        return files_at([*self.options.places(), *(self.backbone.places() if self.backbone else [])])

    @property
    def views(self) -> int:
        """Dihedral views of an image; 1 for a method that has its own towers or reads texts in place of images."""
        return self.backbone.features.views if self.backbone and self.captioner is None else 1


def _require_bounded_step(options: MethodOptions, training: Training) -> None:
    """Raise `ValueError` if the scores of a training step would take more memory than any machine has to spare."""
    size = training.batch_size
    held = options.held_pairs(size)
    if size * (size + held) > MAX_SCORES:
        raise ValueError(
            f"batch_size: {size:,} pairs against {size + held:,} with those of the queue are more than {MAX_SCORES:,} "
            "scores in a step; use smaller batches or a shorter queue"
        )


def found_modules(method: str, options: MethodOptions, backbone: BackboneOptions | None) -> list[str]:
    """Modules that registries find by name for a method on a backbone; code digests include them."""
    return [METHODS.module(method), *options.modules(), *([backbone.module()] if backbone else [])]


def expand_runs(
    entries: Mapping[str, RunEntry],
    defaults: RunDefaults,
    training: Training,
    backbones: list[str],
    datasets: list[str],
) -> list[Run]:
    """All runs of a config, in the config's order.

    Args:
        entries: run entries by name, as written in the config.
        defaults: settings that all runs inherit.
        training: top-level training settings, which a run's own settings override.
        backbones: names of the config's backbones.
        datasets: names of the config's datasets.

    Raises:
        ValueError: an entry is invalid; the message has one sentence per error.
    """
    runs: list[Run] = []
    mistakes: list[str] = []
    for name in entries:
        try:
            merged = merge(defaults.model_dump(exclude_none=True), _inherited(entries, name))
            for suffix, variant in _sweep(f"runs.{name}", merged, entries[name].sweep):
                require_known(f"runs.{name}.datasets", variant.get("datasets", []), datasets)
                runs += _runs(name, suffix, variant, training, backbones, entries[name].backbones is not None)
                if len(runs) > MAX_RUNS:
                    raise ValueError(f"runs.{name}: the config has more than {MAX_RUNS:,} runs")
        except ValueError as error:
            mistakes.append(as_sentences(error))
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return runs


def _inherited(entries: Mapping[str, RunEntry], name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entry's settings merged over those of the runs that it is based on."""
    entry, key = entries[name], f"runs.{name}.based_on"
    own = entry.model_dump(exclude_none=True, exclude={"based_on", "sweep"})
    if entry.based_on is None:
        return own
    if entry.based_on not in entries:
        raise ValueError(f"{key}: unknown run {entry.based_on!r}; known are {', '.join(entries)}")
    if entry.based_on in (*below, name):
        raise ValueError(f"{key}: {' → '.join((*below, name, entry.based_on))} is a circle")
    if len(below) == MAX_CHAIN:
        raise ValueError(f"{key}: {below[0]} is based on more than {MAX_CHAIN} runs, one on another")
    return merge(_inherited(entries, entry.based_on, (*below, name)), own)


def _sweep(where: str, run: dict[str, Any], sweep: Mapping[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """For every combination of the swept values: the suffix of the run's name, and the run's settings."""
    for key, values in sweep.items():
        if not re.fullmatch(r"(options|training)(\.\w+){1,5}", key):
            raise ValueError(f"{where}.sweep: {key!r} must name an option or a training key, such as training.lr")
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ValueError(f"{where}.sweep.{key}: {shown(values)} has the same value twice")
    if math.prod(map(len, sweep.values())) > MAX_RUNS:
        raise ValueError(f"{where}.sweep: its values have more than {MAX_RUNS:,} combinations")
    for chosen in product(*sweep.values()):
        suffix, variant = "", run
        for key, value in zip(sweep, chosen, strict=True):
            path = key.split(".")
            suffix += f".{path[-1]}_{str(value).lower()}"
            nested: Any = value
            for part in reversed(path):
                nested = {part: nested}
            variant = merge(variant, nested)
        yield suffix, variant


def _runs(
    name: str, suffix: str, settings: dict[str, Any], training: Training, backbones: list[str], own_backbones: bool
) -> list[Run]:
    """One run per backbone."""
    where = f"runs.{name}"
    if "method" not in settings:
        raise ValueError(f"{where}.method: Field required")
    method = settings["method"]
    try:
        METHOD_OPTIONS.check(method)
    except ValueError as error:
        raise ValueError(f"{where}.method: {error}") from None
    options = parse_options(method, settings["options"], f"{where}.options")
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
    """The top-level training settings overridden by the run's own; one process if the method does not train."""
    given = training.model_dump() | settings["training"] | ({} if options.trains else {"processes": 1})
    if given["inputs"] == "stored" and options.usual_inputs == "online" and settings.get("datasets"):
        what = "rich texts" if options.image_input == "captions" else "pixels, and trains within the image tower"
        raise ValueError(f"{where}: {method} reads {what}; remove `inputs: stored`")
    given["inputs"] = given["inputs"] or options.usual_inputs
    return validate_part(Training, given, f"{where}.training")


def _towers(
    where: str, options: MethodOptions, settings: dict[str, Any], known: list[str], own: bool
) -> list[str] | list[None]:
    """Names of the run's backbones, or a single None if the method brings its own towers."""
    if options.own_towers:
        if own:
            raise ValueError(f"{where}.backbones: {settings['method']} has its own towers; remove this key")
        return [None]
    given: list[str] = settings.get("backbones", [])
    if not given:
        raise ValueError(f"{where}.backbones: Field required, here or in run_defaults; known are {', '.join(known)}")
    require_known(f"{where}.backbones", given, known)
    return given
