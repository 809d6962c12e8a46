"""Display of the ways to train on a machine, and of what is missing where none fits."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from cmer.errors import UserError
from cmer.profiling.fit import GB, Machine, Way


def table(title: str, ways: Sequence[Way], machine: Machine, batch: int, tflops: float) -> Table:
    """A row per way to train."""
    caption = (
        f"kept: for the backward pass of a batch of {batch}, counted from shapes in float32. memory: of the process at "
        f"its peak, partly estimated. hours: extraction and one seed, from multiply-accumulates at {tflops:g} TFLOP/s, "
        "without the decoding of images. +: what is missing."
    )
    shown = Table(title=title, box=box.SIMPLE_HEAD, caption=caption)
    for name in ("engine", "blocks", "features"):
        shown.add_column(name)
    for name in ("disk GB", "micro_batch", "kept GB", "memory GB", "hours", "fits"):
        shown.add_column(name, justify="right")
    for way in ways:
        shown.add_row(
            *(way.engine, _blocks(way.blocks), way.dtype or "-", _gb(way.disk) if way.dtype else "-"),
            *(str(way.micro_batch or "-"), _gb(way.kept), _gb(way.memory), f"{way.hours(tflops):,.2f}"),
            _verdict(way, machine),
        )
    return shown


def nothing_fits(title: str, ways: Sequence[Way], machine: Machine) -> UserError:
    """The error for a machine on which no way fits; `ways` encode as few pairs at once as its memory asks for."""
    online = min((way for way in ways if way.engine == "online"), key=lambda way: way.memory)
    stored = min((way for way in ways if way.engine == "stored"), key=lambda way: (way.disk, way.memory))
    return UserError(
        f"{title} does not fit: it needs at least {_gb(online.memory)} GB of memory online, or "
        f"{_gb(stored.memory)} GB of memory and {_gb(stored.disk)} GB of disk from stored features; given are "
        f"{_gb(machine.memory)} GB and {_gb(machine.disk)} GB. Take a smaller backbone, or a smaller --batch"
    )


def _blocks(blocks: Sequence[int]) -> str:
    if len(blocks) > 4:
        return f"all {len(blocks)}"
    return ", ".join(map(str, blocks))


def _verdict(way: Way, machine: Machine) -> str:
    short = [
        f"{name} + {_gb(needed - there)}"
        for name, needed, there in (("memory", way.memory, machine.memory), ("disk", way.disk, machine.disk))
        if needed > there
    ]
    return "yes" if way.fits(machine) else "no: " + ", ".join(short)


def _gb(count: int) -> str:
    return f"{count / GB:.1f}" if count >= GB / 10 else f"{count / GB:.2g}"
