"""What a profile is told to measure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from cmer.config import Backbone, MethodOptions, Model, Name, ProfileOptions, options_of_the_method

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
    """Rows on one backbone, and how they are measured. `name` is the backbone's, as `count_only` may list it."""

    name: str
    backbone: Backbone
    rows: Annotated[list[ProfileRow], Field(min_length=1)]
    profile: ProfileOptions = ProfileOptions()
