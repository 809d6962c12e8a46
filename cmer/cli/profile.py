"""Commands that measure and compare the cost of training: profile, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmer.cli.data import Record
from cmer.cli.files import Reads, Writes
from cmer.config.base import validate, validate_json
from cmer.config.training import StepOptions
from cmer.errors import UserError
from cmer.io import atomic, read_sealed, write_sealed
from cmer.provenance import recorded

app = typer.Typer(no_args_is_help=True)

DEFAULT = StepOptions()


@app.command()
def profile(
    backbone: Annotated[str | None, typer.Option(help="open_clip model name, lite or tiny.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method name; repeat for several.")] = None,
    batch: Annotated[
        list[int], typer.Option(help="Batch size in pairs: give two, or one that is measured together with its double.")
    ] = list(DEFAULT.batches),  # noqa: B006
    setting: Annotated[
        list[str],
        typer.Option(
            help="paper_like: float32, plain attention, 77 tokens; today: bfloat16 (GPU), fused attention, 32 tokens."
        ),
    ] = list(DEFAULT.settings),  # noqa: B006
    steps: Annotated[int, typer.Option(help="Timed steps per method and round.")] = DEFAULT.steps,
    rounds: Annotated[int, typer.Option(help="Rounds, each of which times all methods.")] = DEFAULT.rounds,
    count_only: Annotated[
        bool, typer.Option("--count-only", help="Do not measure peak memory and speed, which are slow and need memory.")
    ] = False,
    spec: Annotated[
        str | None, typer.Option(help="JSON instead of the options above: name, backbone, rows, profile, count_only.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the measurements."), Writes()] = None,
    record: Record = None,
) -> None:
    """Measure the cost of a training step of methods: parameters, memory, arithmetic and pairs per second.

    The step is that of the training loop, on random pixels and captions of the demo; nothing is fetched. Prints a
    table, and ratios to clip_adapter and clip_lora if they are among the methods.
    """
    from cmer.profiling.profile import profile as measure
    from cmer.profiling.show import show
    from cmer.profiling.spec import ProfileSpec

    if (spec is None) == (not backbone or not method):
        raise UserError("give either --backbone and --method, or --spec")
    if spec is not None:
        parsed = validate_json(ProfileSpec, spec, "--spec")
    else:
        sizes = sorted(batch) if len(batch) > 1 else [batch[0], 2 * batch[0]]
        names = dict.fromkeys(method or [])
        options = {"steps": steps, "rounds": rounds, "batches": sizes, "settings": list(dict.fromkeys(setting))}
        data = {
            "name": backbone,
            "backbone": {"printed": backbone}
            | ({"kind": backbone} if backbone in ("lite", "tiny") else {"kind": "open_clip", "model": backbone}),
            "rows": [{"run": name, "method": name} for name in names],
            "profile": options,
            "count_only": count_only,
        }
        parsed = validate(ProfileSpec, data, "the profile's specification")
    with recorded(record):
        result = measure(parsed)
        if out is not None:
            write_sealed(out, result, "cmer profile")
    show(result)


@app.command()
def bench(
    profiles: Annotated[list[Path], typer.Argument(help="Profiles of backbones (cmer profile --out)."), Reads()],
    out: Annotated[
        Path,
        typer.Option(help="JSON file for the rows of all profiles; the chart goes beside it."),
        Writes(("", ".png", ".svg")),
    ],
    record: Record = None,
) -> None:
    """Join profiles in one file, and print and draw their costs and ratios to clip_adapter and clip_lora.

    Beside each ratio of speeds are its bounds: that of multiply-accumulates, and for stored features that of reading.
    """
    from cmer.profiling.show import show
    from cmer.reporting.bench import bench_rows
    from cmer.reporting.drawings.bench import draw
    from cmer.reporting.efficiency import read_costs
    from cmer.reporting.style import encoded

    with recorded(record):
        rows = bench_rows(read_costs(profiles))
        write_sealed(out, {"rows": rows}, "cmer bench")
        drawing = draw(rows)
        for format in ("png", "svg"):
            with atomic(out.with_suffix(f".{format}")) as temporary:
                temporary.write_bytes(encoded(drawing, format))
    for file in profiles:
        show(read_sealed(file, "cmer profile"))
