"""Settings of linear_probe."""

from __future__ import annotations

from cmer.methods.layers.settings import MemberOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("linear_probe")
class LinearProbeOptions(MemberOptions):
    """One linear map per tower."""
