"""Specification of a profile."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from cmer.config.backbones import Backbone
from cmer.config.base import Model, Name
from cmer.config.methods import MethodOptions, parse_options_field
from cmer.config.runs import found_modules
from cmer.config.training import MicroBatch, StepOptions

Setting = Literal["paper_like", "today"]


class ProfileRow(Model):
    """A run to profile.

    With `stored`, its step reads stored features instead of running the frozen towers.
    """

    run: Name
    method: str
    options: SerializeAsAny[MethodOptions] = MethodOptions()
    micro_batch: MicroBatch | None = None
    stored: bool = False

    @model_validator(mode="before")
    @classmethod
    def _parse_options_field(cls, data: Any) -> Any:
        return parse_options_field(data)

    @model_validator(mode="after")
    def _reads_features(self) -> Self:
        if self.stored and self.options.image_input != "features":
            raise ValueError(f"{self.run}: {self.method} reads pixels, and cannot be profiled from stored features")
        return self


class ProfileSpec(Model):
    """Rows on one backbone (or of methods without a backbone), and how to measure them.

    With `count_only`, neither peak memory nor speed is measured.
    """

    name: str
    backbone: Backbone | None = None
    rows: Annotated[list[ProfileRow], Field(min_length=1)]
    profile: StepOptions = StepOptions()
    count_only: bool = False

    def modules(self) -> list[str]:
        """Modules that registries find by name for the rows; code digests include them."""
        return sorted({name for row in self.rows for name in found_modules(row.method, row.options, self.backbone)})
