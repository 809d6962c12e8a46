"""What a profile is told to measure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from cmer.config import Backbone, MethodOptions, Model, Name, StepOptions, options_of_the_method

Setting = Literal["paper_like", "today"]


class ProfileRow(Model):
    """A run that is profiled."""

    run: Name
    method: str
    options: SerializeAsAny[MethodOptions] = MethodOptions()

    @model_validator(mode="before")
    @classmethod
    def _options_of_the_method(cls, data: Any) -> Any:
        return options_of_the_method(data)


class ProfileSpec(Model):
    """Rows on one backbone, and how they are measured; with `count_only`, neither peak memory nor speed is."""

    name: str
    backbone: Backbone
    rows: Annotated[list[ProfileRow], Field(min_length=1)]
    profile: StepOptions = StepOptions()
    count_only: bool = False
