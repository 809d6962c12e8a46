"""Label protocols: what the test queries contain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cmer.config.methods import MethodOptions
from cmer.config.runs import Run

Protocol = Literal["none", "predicted", "oracle", "shuffled", "rich"]
PROTOCOLS: tuple[Protocol, ...] = ("none", "predicted", "oracle", "shuffled", "rich")


def protocols_of(options: MethodOptions) -> Sequence[str]:
    """The label protocols under which a run is evaluated."""
    if options.rich is not None and options.rich.query is not None:
        return ["rich"]
    return options.protocols or [name for name in PROTOCOLS if name != "rich"]


def require_same_queries(key: str, run: Run, partner: Run) -> None:
    """Raise `ValueError` unless the partner of a run is evaluated on all of its queries; `key` names the partner."""
    theirs = protocols_of(partner.options)
    if missing := [protocol for protocol in protocols_of(run.options) if protocol not in theirs]:
        raise ValueError(
            f"{key}: {partner.name} is not evaluated under {', '.join(missing)}, as {run.name} is, but under "
            f"{', '.join(theirs)}; name another run, or leave {run.name} out"
        )
    if "rich" in theirs and run.options.rich != partner.options.rich:
        raise ValueError(f"{key}: the queries of {partner.name} are other texts than those of {run.name}; name another")
