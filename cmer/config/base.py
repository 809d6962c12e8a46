"""Base class of all settings, and errors that name keys as the user wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cmer.config.plain import mistakes, shown
from cmer.errors import UserError
from cmer.io import parse_json

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

NAME = r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$"
NOT_BLANK = r"\S"
Precision = Literal["float32", "bfloat16"]
Name = Annotated[str, Field(pattern=NAME, max_length=200)]
"""A name in file names, which have at most 255 bytes."""
Text = Annotated[str, Field(pattern=NOT_BLANK)]
"""Text that is required: with at least one character that is not white space."""
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=2, le=65_536)]
"""The scores of a batch of 65,536 pairs have 16 GiB in float32."""
Width = Annotated[int, Field(ge=1, le=8192)]
"""A layer between two widths of 8,192 has 256 MiB in float32."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's random generators take no larger one."""
Threads = Annotated[int, Field(ge=1, le=1024)]
"""More threads than any machine has cores; each allocates a stack."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
"""Share of dropped inputs; with 1, nothing would be left to train on."""
Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
"""Weight of a loss beside others of weight 1."""

MAX_SENTENCES = 20
"""Maximum number of sentences in one error."""


class ConfigError(UserError):
    """The configuration is invalid; the message names every invalid key."""


class Model(BaseModel):
    """Base class of all settings, which are immutable.

    Unknown keys are errors, numbers are finite, and no type stands for another: neither text nor true is a number. Only
    lists and tuples do, as JSON and YAML have one kind of sequence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if unknown := sorted(map(repr, set(data) - set(cls.model_fields))):
            known = ", ".join(cls.model_fields)
            raise ValueError(f"unknown key {', '.join(unknown)}; known are {known}")
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


def validate(model: type[M], data: Any, what: str) -> M:
    """Validate `data` as `model` and turn pydantic's errors into one `ConfigError` of readable sentences."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{what} is not valid:\n{sentences(error, data)}") from None


def validate_json(model: type[M], text: str, what: str) -> M:
    """Validate JSON text as `model`.

    Raises:
        UserError: it is not JSON, repeats a key, or is not valid.
    """
    data = parse_json(text, what)
    require_plain(data, what)
    return validate(model, data, what)


def require_plain(data: Any, what: str) -> None:
    """Raise `ConfigError` if `data` is not made of plain values of moderate size; see `cmer.config.plain`."""
    if found := list(islice(mistakes(data), MAX_SENTENCES)):
        raise ConfigError(f"{what} is not valid:\n" + "\n".join(f"  - {mistake}" for mistake in found))


def validate_part(model: type[M], data: Any, key: str) -> M:
    """Validate the value of `key` inside another validator; raises `ValueError` with sentences that name full keys."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(sentences(error, data, key)) from None


def as_sentences(error: ValueError) -> str:
    """The error's message as lines of a config error: one that holds several has them already."""
    message = str(error)
    return message if message.startswith("  - ") else f"  - {message}"


def require_distinct(values: Sequence[T]) -> Sequence[T]:
    """The values; raises `ValueError` if one appears more than once."""
    repeated = [value for value, count in Counter(map(str, values)).items() if count > 1]
    if repeated:
        raise ValueError(f"{', '.join(repeated)} appears more than once")
    return values


def require_unique(key: str, names: Sequence[str]) -> None:
    """Raise `ValueError` if a name appears more than once in the list under `key`."""
    try:
        require_distinct(names)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


Distinct = Annotated[list[T], AfterValidator(require_distinct), Field(json_schema_extra={"uniqueItems": True})]
"""A list of different values."""
Several = Annotated[Distinct[T], Field(min_length=1)]
"""A list of different values, at least one."""


def require_known(key: str, given: list[str], known: list[str]) -> None:
    """Raise `ValueError` if the list under `key` contains a name that is not in `known`."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{key}: unknown {', '.join(unknown)}; known are {', '.join(known) or 'none'}")


def sentences(error: ValidationError, data: Any, within: str = "") -> str:
    """One line per error: the key, what is wrong, and the given value.

    Args:
        error: raised by pydantic.
        data: the validated data.
        within: key of `data` in the whole config.
    """
    lines: list[str] = []
    for item in error.errors():
        path = _path(item["loc"], data, item["type"])
        key = ".".join([*([within] if within else []), *path]) or "top level"
        message = _message(item)
        given = "" if item["type"] in ("value_error", "missing") else f" (given: {shown(item['input'])})"
        if message.startswith("  - "):  # sentences of a part that was validated separately
            lines += message.split("\n")
        elif key == "top level" and item["type"] == "value_error":  # the message already names its key
            lines.append(f"  - {message}")
        else:
            lines.append(f"  - {key}: {message}{given}")
    rest = [f"  - further mistakes: {len(lines) - MAX_SENTENCES:,}"] if len(lines) > MAX_SENTENCES else []
    return "\n".join(lines[:MAX_SENTENCES] + rest)


def _message(item: ErrorDetails) -> str:
    """What is wrong, in words, where pydantic's own do not say it to someone who writes a config."""
    match item["type"], item.get("ctx", {}):
        case "union_tag_not_found", {"discriminator": field}:
            return f"Field {field} required"
        case "bool_type", _:
            return "Input should be true or false, without quotes"
        case "too_short", _:
            return "Input should have at least one value"
        case "string_pattern_mismatch", {"pattern": pattern} if pattern == NAME:
            return "a name consists of a-z, 0-9, - and _, with single dots between them"
        case "string_pattern_mismatch", {"pattern": pattern} if pattern == NOT_BLANK:
            return "Input should not be blank"
    return item["msg"].removeprefix("Value error, ")


def _path(location: tuple[int | str, ...], data: Any, kind: str) -> list[str]:
    """The keys of an invalid value that occur in the data, without the names of union members that pydantic adds."""
    path, here = [], data
    for part in location:
        if isinstance(here, list | tuple):
            inside = isinstance(part, int) and part < len(here)
        else:
            inside = isinstance(here, dict) and part in here
        if inside:
            path.append(str(part))
            here = here[part]
        elif kind == "missing" and part == location[-1]:
            path.append(str(part))
    return path


def changes(given: BaseModel, wanted: BaseModel, exclude: set[str] | None = None) -> list[str]:
    """The settings that differ, as "key is X, not Y", with nested keys joined by dots.

    Args:
        given: settings of a file.
        wanted: settings of the run that reads it.
        exclude: top-level keys that do not count.
    """
    one, two = (flat(each.model_dump(mode="json", exclude=exclude)) for each in (given, wanted))
    keys = dict.fromkeys([*two, *one])
    return [f"{key} is {one.get(key)}, not {two.get(key)}" for key in keys if one.get(key) != two.get(key)]


def flat(settings: dict[str, Any], within: str = "") -> dict[str, Any]:
    """Settings without nesting: their keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{within}{key}.") if isinstance(value, dict) else {f"{within}{key}": value}
    return found
