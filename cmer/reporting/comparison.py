"""Differences in mR between measured runs, and whether the paired bootstrap supports them."""

from __future__ import annotations

from collections.abc import Sequence

from cmer.reporting.measured import Measured, signed
from cmer.retrieval.bootstrap import Difference, mr_difference
from cmer.retrieval.evaluate import read_hits

TO_BEST = ("best_run", "delta_best", "delta_best_ci_low", "delta_best_ci_high", "supported")
"""Columns of the difference from the best run: `supported` is yes if the interval excludes zero, and says if it is that
of a single seed."""


def compare(run: Measured, other: Measured) -> Difference:
    """MR of a run minus that of another one on the same dataset, under the label protocol of each.

    Raises:
        UserError: the ranks of a seed are missing, or the test splits differ.
    """
    hits = [[read_hits(file, row.protocol) for file in row.ranks] for row in (run, other)]
    return mr_difference(*hits)


def difference_cells(run: Measured, other: Measured) -> tuple[str, str, str, str]:
    """Cells of a difference: its value, the bounds of its interval, and whether it is supported."""
    found = compare(run, other)
    supported = ("yes" if found.supported else "no") + " (one seed)" * (len(run.seeds) == 1)
    return signed(found.estimate), signed(found.low), signed(found.high), supported


def to_best(rows: Sequence[Measured]) -> list[dict[str, str]]:
    """The cells `TO_BEST` of each row: its difference from the best row on its dataset under its label protocol.

    The cells of the best row, and of a row without others to compare with, are empty.
    """
    groups: dict[tuple[str, str], list[Measured]] = {}
    for row in rows:
        groups.setdefault((row.run.dataset, row.protocol), []).append(row)
    best = {key: max(group, key=lambda row: row.mr) for key, group in groups.items()}
    return [_cells(row, best[row.run.dataset, row.protocol]) for row in rows]


def _cells(row: Measured, best: Measured) -> dict[str, str]:
    if row is best:
        return {}
    return dict(zip(TO_BEST, (best.run.name, *difference_cells(row, best)), strict=True))
