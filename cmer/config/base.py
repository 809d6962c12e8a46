"""Base class of all settings, and errors that name keys as the user wrote them."""

from __future__ import annotations

import json
import reprlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cmer.errors import UserError

M = TypeVar("M", bound=BaseModel)

Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$")]
Positive = Annotated[int, Field(ge=1)]
BatchSize = Annotated[int, Field(ge=2)]
Precision = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

MAX_SENTENCES = 20
"""Maximum number of sentences in one error."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class ConfigError(UserError):
    """The configuration is invalid; the message names every invalid key."""


class Model(BaseModel):
    """Base class of all settings: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        unknown = sorted(map(repr, set(data) - set(cls.model_fields))) if isinstance(data, dict) else []
        if unknown:
            known = ", ".join(cls.model_fields)
            raise ValueError(f"unknown key {', '.join(unknown)}; known are {known}")
        return data


def validate(model: type[M], data: Any, what: str) -> M:
    """Validate `data` as `model` and turn pydantic's errors into one `ConfigError` of readable sentences."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{what} is not valid:\n{sentences(error, data)}") from None


def validate_json(model: type[M], text: str, what: str) -> M:
    """Validate JSON text as `model`; raises `ConfigError` if it is not JSON or not valid."""
    try:
        return validate(model, json.loads(text), what)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not JSON: {error}") from None


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


def require_unique(key: str, names: list[str]) -> None:
    """Raise `ValueError` if a name appears more than once in the list under `key`."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{key}: {', '.join(repeated)} appears more than once")


def require_known(key: str, given: list[str], known: list[str]) -> None:
    """Raise `ValueError` if the list under `key` contains a name that is not in `known`."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{key}: unknown {', '.join(unknown)}; known are {', '.join(known)}")


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
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "union_tag_not_found":
            message = f"Field {item['ctx']['discriminator']} required"
        given = "" if item["type"] in ("value_error", "missing") else f" (given: {_SHORT.repr(item['input'])})"
        if message.startswith("  - "):  # sentences of a part that was validated separately
            lines += message.split("\n")
        elif key == "top level" and item["type"] == "value_error":  # the message already names its key
            lines.append(f"  - {message}")
        else:
            lines.append(f"  - {key}: {message}{given}")
    rest = [f"  - and {len(lines) - MAX_SENTENCES:,} more"] if len(lines) > MAX_SENTENCES else []
    return "\n".join(lines[:MAX_SENTENCES] + rest)


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
