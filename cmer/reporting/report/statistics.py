"""What the steps of an experiment took, from the records of their commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmer.reporting.record import Logged

PHASES = {
    "data": ("Dataset", ()),
    "captions": ("Captions and prompts", ("data",)),
    "rich": ("Rich texts", ("data",)),
    "features": ("Frozen features", ("data", "captions")),
    "train": ("Training", ("captions", "rich", "features")),
    "embed": ("Embedding", ("train",)),
    "banks": ("Banks", ("train",)),
    "evaluate": ("Evaluation", ("embed", "banks")),
    "heat_maps": ("Heat maps", ("data", "train")),
    "efficiency": ("Profiling", ()),
    "tables": ("Tables", ("evaluate", "efficiency")),
    "figures": ("Figures", ("evaluate", "efficiency", "heat_maps")),
}
"""Phases of the workflow, by the folder of their logs: title, and the phases that they read."""


@dataclass(frozen=True)
class Phase:
    """A phase of the workflow.

    Attributes:
        reads: titles of the phases whose results it reads.
        jobs: number of commands.
        seconds: their time, added up.
        memory: peak memory of the largest one, MiB.
    """

    title: str
    reads: list[str]
    jobs: int
    seconds: float
    memory: int


def statistics(logs: Path, logged: Sequence[Logged]) -> list[Phase]:
    """The phases of which there are records in the folder `logs`, in the order of the workflow."""
    found = {name: [call for log, call in logged if log.is_relative_to(logs / name)] for name in PHASES}
    return [
        Phase(
            title=title,
            reads=[PHASES[other][0] for other in reads if found[other]],
            jobs=len(found[name]),
            seconds=sum(call["seconds"] for call in found[name]),
            memory=max(call["peak_memory_mib"] for call in found[name]),
        )
        for name, (title, reads) in PHASES.items()
        if found[name]
    ]
