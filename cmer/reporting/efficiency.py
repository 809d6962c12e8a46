"""What a training step costs in memory, arithmetic and time, compared with two reference methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, Field

from cmer.config.base import validate
from cmer.errors import UserError
from cmer.io import read_sealed
from cmer.profiling.show import REFERENCES
from cmer.registry import METHOD_OPTIONS
from cmer.reporting.base import Files, Table, TableSpec
from cmer.reporting.measured import number
from cmer.reporting.metrics import TableRun
from cmer.reporting.naming import differences, printed_name, slug
from cmer.reporting.paper import printed, printed_methods

MB = 1e6
"""Bytes per megabyte."""

SQUARE = 128
"""Bytes per entry of all B x B matrices that a loss may keep, 32 of float32; chosen here, above all measured losses."""

MEASURES = ("memory", "saved", "speed")
PAPER_RATIOS = [f"paper_{what}_ratio_to_{reference}" for reference in REFERENCES for what in ("memory", "speed")]
COSTS = (
    *("source", "method", "options", "run", "backbone", "setting", "batch", "params_m"),
    *("saved_mb_per_pair", "saved_mb_fixed", "memory_mb", "reserved_mb"),
    *("pairs_per_s", "pairs_per_s_low", "pairs_per_s_high", "gmacs_forward_per_pair", "gmacs_backward_per_pair"),
)
CIRCUMSTANCES = ("precision", "attention", "tokens", "device", "threads", "status", "note")
NOT_RUN = "not run here"
PRINTED = "two V100, batch and precision not printed: megabytes and pairs/s compare with no measured row, ratios may"
MEMORY = {
    "cuda": "memory: the most that tensors took, weights included",
    "cpu": "memory: how far the process rose above weights, optimiser state and batch",
}
Measures = Mapping[str, float | None]


class SavedLine(BaseModel):
    """Bytes kept for the backward pass, as a linear function of the batch size."""

    run: str
    setting: str
    bytes_per_pair: float | None
    fixed_bytes: float | None


class MeasuredStep(BaseModel):
    """A run's training step under one setting and batch size; null where not measured, or where memory ran out."""

    run: str
    method: str
    parameters: int
    setting: str
    batch: int
    micro_batch: int | None = None
    stored: bool = False
    precision: str
    attention: str
    tokens: int
    saved_bytes: int | None
    macs_forward: int | None
    macs_backward: int | None
    peak_bytes: int | None
    peak_reserved_bytes: int | None
    pairs_per_second: float | None
    pairs_per_second_low: float | None
    pairs_per_second_high: float | None
    read_bytes_per_pair: int | None = None
    read_pairs_per_second: float | None = None

    @property
    def engine(self) -> str:
        """Whether the step reads stored features, or runs the frozen towers (online)."""
        return "stored" if self.stored else "online"


class EfficiencyFile(BaseModel):
    """The part of a profile, as written by `cmer profile` for a backbone, that tables and figures read."""

    backbone: str
    device: Annotated[str, Field(pattern="^(cpu|cuda): ")]
    threads: int
    rows: list[MeasuredStep]
    saved: list[SavedLine]


@dataclass(frozen=True)
class Cost:
    """A measured step, and where it was measured.

    Attributes:
        backbone: name of the backbone in the config.
        device: kind and name of the device, separated by a colon.
        threads: number of CPU threads.
        step: the measured step.
        saved: bytes kept for the backward pass by the step's run under its setting.
    """

    backbone: str
    device: str
    threads: int
    step: MeasuredStep
    saved: SavedLine

    @property
    def name(self) -> str:
        """Name of the run without that of its backbone."""
        return self.step.run.removeprefix(f"{self.backbone}.")

    def measures(self) -> Measures:
        """The quantities that ratios compare: peak bytes, kept bytes per pair, pairs per second."""
        values = (self.step.peak_bytes, self.saved.bytes_per_pair, self.step.pairs_per_second)
        return dict(zip(MEASURES, values, strict=True))


def read_costs(files: Iterable[Path | str]) -> list[Cost]:
    """All measured steps in these files.

    Raises:
        UserError: a file is missing, or was not written by `cmer profile`.
    """
    costs = []
    for file in files:
        read = validate(EfficiencyFile, read_sealed(file, "cmer profile"), str(file))
        lines = {(line.run, line.setting): line for line in read.saved}
        if missing := {(row.run, row.setting) for row in read.rows} - set(lines):
            raise UserError(f"{file} holds no saved bytes of {min(missing)}; run `cmer profile` again")
        costs += [Cost(read.backbone, read.device, read.threads, row, lines[row.run, row.setting]) for row in read.rows]
    return costs


def costs_of(costs: Sequence[Cost], run: TableRun) -> list[Cost]:
    """The measured steps of a run.

    Raises:
        UserError: the run has none.
    """
    found = [cost for cost in costs if cost.step.run == run.name]
    if not found:
        raise UserError(f"none of the given efficiency files measures {run.name}; run `cmer profile` for its backbone")
    return found


def significant(value: float | None, unit: float = 1) -> str:
    """Four significant digits of `value` in units of `unit`; "" if it was not measured."""
    return "" if value is None else f"{float(f'{value / unit:.4g}') + 0.0:.12g}"  # + 0.0: no "-0"


class Efficiency(Table):
    """Every printed row, then every run under every setting and batch size; a megabyte is 10^6 bytes.

    Ratios compare rows with the same backbone, setting and batch size; they are empty where the reference was not
    measured. Every run of a method in `REFERENCES` is a reference; its columns have its name without that of the
    backbone, for example `memory_ratio_to_clip_lora_in_projections`. The ratios of printed rows have the columns of
    `REFERENCES` themselves. A measured row repeats only ratios of the paper, and only where method, options and
    backbone are those of the printed row: absolute costs depend on the device.
    """

    reads = ("efficiency",)
    printed = (1, 3)

    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """See `Table`."""
        costs, paper = read_costs(files.efficiency), printed(3)
        names = printed_methods()  # Table 3 has only some of them
        rows = [_paper_row(row, paper) for _, row in paper.iterrows()]
        measured = []
        for run in spec.runs:
            found = costs_of(costs, run)
            cells = {"method": printed_name(run.method, run.options, names)}
            same = (paper["method"] == cells["method"]) & (paper["backbone_vision"] == run.backbone_printed)
            if same.any() and not differences(run.options):
                row = rows[same.argmax()]
                done = _status(max((cost.step for cost in found), key=lambda step: step.pairs_per_second is not None))
                row["status"] = f"{done}: {run.name}" if row["status"] == NOT_RUN else f"{row['status']}, {run.name}"
                cells |= {name: row.get(name.removeprefix("paper_"), "") for name in PAPER_RATIOS}
            measured += [cells | _measured_row(run, cost, costs) for cost in found]
        columns = [*COSTS, *_ratio_columns(costs), *PAPER_RATIOS, *CIRCUMSTANCES]
        return pd.DataFrame(rows + measured, columns=columns)


def _ratio_columns(costs: Iterable[Cost]) -> list[str]:
    """Columns of the ratios to the paper's references and to all runs of their methods, in any order of the costs."""
    runs = {(cost.step.method, cost.name) for cost in costs if cost.step.method in REFERENCES}
    names = dict.fromkeys(name for _, name in sorted(runs | {(name, name) for name in REFERENCES}))
    return [f"{measure}_ratio_to_{name}" for name in names for measure in MEASURES]


def _paper_row(row: pd.Series, paper: pd.DataFrame) -> dict[str, str]:
    beside = paper[paper["backbone_vision"] == row["backbone_vision"]]
    methods = {slug(other["method"]): _printed_measures(other) for _, other in beside.iterrows()}
    references = {name: methods[name] for name in REFERENCES if name in methods}
    return {
        "source": "paper",
        "method": row["method"],
        "backbone": row["backbone_vision"],
        "params_m": row["params_m"],
        "memory_mb": row["memory_mb"],
        "pairs_per_s": row["throughput_pairs_s"],
        **_ratios(_printed_measures(row), references),
        "status": NOT_RUN,
        "note": "; ".join([PRINTED, *_note(slug(row["method"]))]),
    }


def _printed_measures(row: pd.Series) -> Measures:
    return {"memory": float(row["memory_mb"]), "saved": None, "speed": float(row["throughput_pairs_s"])}


def _measured_row(run: TableRun, cost: Cost, costs: Sequence[Cost]) -> dict[str, str]:
    step, saved = cost.step, cost.saved
    case = (cost.backbone, step.setting, step.batch)
    beside = [other for other in costs if (other.backbone, other.step.setting, other.step.batch) == case]
    references = {other.name: other.measures() for other in beside if other.step.method in REFERENCES}
    memory = [] if step.peak_bytes is None else [MEMORY[cost.device.partition(":")[0]]]
    return {
        "source": "measured",
        "options": ", ".join(differences(run.options)),
        "run": run.name,
        "backbone": run.backbone_printed,
        "setting": step.setting,
        "batch": str(step.batch),
        "params_m": number(step.parameters / 1e6),
        "saved_mb_per_pair": significant(saved.bytes_per_pair, MB),
        "saved_mb_fixed": significant(_fixed_bytes(cost, costs), MB),
        "memory_mb": significant(step.peak_bytes, MB),
        "reserved_mb": significant(step.peak_reserved_bytes, MB),
        "pairs_per_s": significant(step.pairs_per_second),
        "pairs_per_s_low": significant(step.pairs_per_second_low),
        "pairs_per_s_high": significant(step.pairs_per_second_high),
        "gmacs_forward_per_pair": significant(step.macs_forward, step.batch * 1e9),
        "gmacs_backward_per_pair": significant(step.macs_backward, step.batch * 1e9),
        **_ratios(cost.measures(), references),
        "precision": step.precision,
        "attention": step.attention,
        "tokens": str(step.tokens),
        "device": cost.device,
        "threads": str(cost.threads),
        "status": _status(step),
        "note": "; ".join([*memory, *_engine(step), *_members(run), *_note(run.method)]),
    }


def _fixed_bytes(cost: Cost, costs: Sequence[Cost]) -> float | None:
    """Bytes kept at any batch size; 0 where the line's neglect of the B x B terms explains a negative value.

    c bytes per entry of such a matrix lower the intercept of the line through batch sizes x and y by c x y.
    """
    fixed, case = cost.saved.fixed_bytes, (cost.backbone, cost.step.run, cost.step.setting)
    sizes = [other.step.batch for other in costs if (other.backbone, other.step.run, other.step.setting) == case]
    return 0.0 if fixed is not None and -SQUARE * min(sizes) * max(sizes) <= fixed < 0 else fixed


def _ratios(own: Measures, references: Mapping[str, Measures]) -> dict[str, str]:
    found = {}
    for reference, measure in product(references, MEASURES):
        value, other = own[measure], references[reference][measure]
        found[f"{measure}_ratio_to_{reference}"] = "" if value is None or not other else number(value / other)
    return found


def _engine(step: MeasuredStep) -> list[str]:
    parts = [] if step.micro_batch is None else [f"encoded in parts of {step.micro_batch}"]
    return [*(["reads stored features"] if step.stored else []), *parts]


def _members(run: TableRun) -> list[str]:
    copies = run.options.copies
    return [] if copies == 1 else [f"cost of a step of one of {copies} members, which are trained one by one"]


def _status(step: MeasuredStep) -> str:
    if step.pairs_per_second is not None:
        return "run here"
    return "out of memory here" if step.saved_bytes is None else "counted here"


def _note(method: str) -> list[str]:
    """The method's note for readers of its row; empty for a printed system that is not implemented here."""
    options = METHOD_OPTIONS.get(method) if method in METHOD_OPTIONS.names() else None
    return [options.note] if options is not None and options.note else []
