"""The benchmark of training steps: measured rows, and their ratios to the baselines beside what arithmetic allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cmer.profiling.show import REFERENCES
from cmer.reporting.efficiency import Cost, MeasuredStep


def bench_rows(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    """One row per run, setting and batch size; null where not measured.

    `ratios` compares with every run of a reference's method on the same backbone, setting and batch size that encodes
    the whole batch at once: pairs per second, saved bytes per pair, and two bounds of the first. `mac_bound` is the
    reference's multiply-accumulates over the run's own, the speed-up if both ran at the same speed; `read_bound` that
    of a run that does nothing but read its stored features.
    """
    return [_row(cost) | {"ratios": _ratios(cost, costs)} for cost in costs]


def _row(cost: Cost) -> dict[str, Any]:
    step = cost.step
    return {
        "backbone": cost.backbone,
        "run": cost.name,
        "method": step.method,
        "engine": step.engine + (f", parts of {step.micro_batch}" if step.micro_batch else ""),
        "setting": step.setting,
        "batch": step.batch,
        "params": step.parameters,
        "pairs_per_s": step.pairs_per_second,
        "read_pairs_per_s": step.read_pairs_per_second,
        "read_bytes_per_pair": step.read_bytes_per_pair,
        "saved_bytes_per_pair": cost.saved.bytes_per_pair,
        "saved_bytes_fixed": cost.saved.fixed_bytes,
        "peak_bytes": step.peak_bytes,
        "macs_per_pair": None if (macs := _macs(step)) is None else macs / step.batch,
        "device": cost.device,
        "threads": cost.threads,
    }


def _ratios(cost: Cost, costs: Sequence[Cost]) -> dict[str, dict[str, float | None]]:
    case = (cost.backbone, cost.step.setting, cost.step.batch)
    beside = [other for other in costs if (other.backbone, other.step.setting, other.step.batch) == case]
    return {
        other.name: {
            "pairs_per_s": _ratio(cost.step.pairs_per_second, other.step.pairs_per_second),
            "mac_bound": _ratio(_macs(other.step), _macs(cost.step)),
            "read_bound": _ratio(cost.step.read_pairs_per_second, other.step.pairs_per_second),
            "saved_bytes_per_pair": _ratio(cost.saved.bytes_per_pair, other.saved.bytes_per_pair),
        }
        for other in beside
        if other.step.method in REFERENCES and other.step.micro_batch is None
    }


def _macs(step: MeasuredStep) -> int | None:
    if step.macs_forward is None or step.macs_backward is None:
        return None
    return step.macs_forward + step.macs_backward


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference
