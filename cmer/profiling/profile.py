"""Comparable profiles of several runs on one backbone."""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import ExitStack, closing
from itertools import product
from statistics import median
from typing import Any

from cmer.config.training import StepOptions
from cmer.profiling import MODULES
from cmer.profiling.spec import ProfileSpec, Setting
from cmer.profiling.worker import Worker
from cmer.progress import Advance, progress
from cmer.provenance import code_digest, versions

Result = dict[str, Any]


def profile(spec: ProfileSpec) -> Result:
    """Measure every row under every setting at both batch sizes.

    If speed is measured, the workers of all rows are alive at the same time. In every round, each worker times its
    steps while the others are idle, so that a machine that warms up or has other load slows all of them equally.
    Backbones that are only counted run one worker after another. For these, and at batch sizes that are not timed,
    memory and speed are None. None also marks measurements that did not fit the GPU's memory; on a CPU, the system
    kills the process instead.

    Returns:
        Content of the profile file: device, threads, versions, code; `rows`, one per run, setting and batch size, with
        bytes and multiply-accumulates of a whole step, and the median number of pairs per second with the medians of
        the slowest and the fastest round; `saved`, the line through the saved bytes at both batch sizes.

    Raises:
        UserError: a row cannot be built or does not fit into memory.
    """
    options = spec.profile
    timed = set() if spec.count_only else options.timed_batches
    groups = [spec.rows] if timed else [[row] for row in spec.rows]
    turns = len(options.settings) * (len(options.batches) + len(timed) * options.rounds)
    rows: list[Result] = []
    with progress(f"Profiling {spec.name}", len(spec.rows) * turns) as done:
        for group in groups:
            with ExitStack() as stack:
                workers = [stack.enter_context(closing(Worker(spec, row))) for row in group]
                device = workers[0].ask("device")
                rows += _measure(workers, options, timed, done)
    runs = [row.run for row in spec.rows]
    rows.sort(key=lambda row: runs.index(row["run"]))
    return {
        "backbone": spec.name,
        "device": device,
        "threads": options.threads,
        "versions": versions(),
        "code": code_digest(*MODULES, *spec.modules()),
        "rows": rows,
        "saved": [_line(rows, run, setting) for run, setting in product(runs, options.settings)],
    }


def _measure(workers: Sequence[Worker], options: StepOptions, timed: Set[int], done: Advance) -> list[Result]:
    """Rows of these workers under every setting and batch size: everything is counted before anything is timed."""
    cases = list(product(options.settings, options.batches))
    counts = [_count(workers, setting, size, size in timed, done) for setting, size in cases]
    rows: list[Result] = []
    for (setting, size), counted in zip(cases, counts, strict=True):
        speeds = _time(workers, setting, size, options.steps, options.rounds if size in timed else 0, done)
        rows += [count | speed for count, speed in zip(counted, speeds, strict=True)]
    return rows


def _count(workers: Sequence[Worker], setting: Setting, size: int, timed: bool, done: Advance) -> list[Result]:
    rows = []
    for worker in workers:
        counted = worker.ask("count", setting, size, timed)
        rows.append({**worker.row.model_dump(), "setting": setting, "batch": size, **counted})
        done(1, f"{setting} {size}")
    return rows


def _time(
    workers: Sequence[Worker], setting: Setting, size: int, steps: int, rounds: int, done: Advance
) -> list[Result]:
    turns: list[list[list[float]]] = [[] for _ in workers]  # worker → round → seconds of each step
    for _ in range(rounds):
        for worker, taken in zip(workers, turns, strict=True):
            taken.append(worker.ask("time", setting, size, steps))
            done(1, f"{setting} {size}")
    return [_speed(size, taken) for taken in turns]


def _speed(size: int, rounds: Sequence[Sequence[float]]) -> Result:
    if not any(rounds):
        return dict.fromkeys(("pairs_per_second", "pairs_per_second_low", "pairs_per_second_high"), None) | {"steps": 0}
    medians = [median(steps) for steps in rounds if steps]
    return {
        "pairs_per_second": size / median(step for steps in rounds for step in steps),
        "pairs_per_second_low": size / max(medians),
        "pairs_per_second_high": size / min(medians),
        "steps": sum(map(len, rounds)),
    }


def _line(rows: Sequence[Result], run: str, setting: str) -> Result:
    """Slope and intercept of the saved bytes over the batch size; the B x B terms of the losses are negligible."""
    (x, low), (y, high) = [
        (row["batch"], row["saved_bytes"]) for row in rows if row["run"] == run and row["setting"] == setting
    ]
    if low is None or high is None:
        return {"run": run, "setting": setting, "bytes_per_pair": None, "fixed_bytes": None}
    slope = (high - low) / (y - x)
    return {"run": run, "setting": setting, "bytes_per_pair": slope, "fixed_bytes": low - slope * x}
