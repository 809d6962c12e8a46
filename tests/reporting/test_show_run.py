"""A run on the terminal."""

from pathlib import Path

import pytest

from cmer.errors import UserError
from cmer.io import read_json
from cmer.reporting.show_run import show_run

PLACE = "squares/lite.probe"


def test_a_run_tells_its_recalls_curve_and_queries(results: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    show_run(Path(f"results/metrics/{PLACE}"))
    out = capsys.readouterr().out
    mrs = [read_json(results / f"metrics/{PLACE}/seed{seed}.json")["protocols"]["none"]["mr"] for seed in (1, 2)]
    assert f"{sum(mrs) / 2:.2f} ± {abs(mrs[0] - mrs[1]) / 2**0.5:.2f}" in out
    assert "lite.probe on squares" in out and "seed1: validation mR 30.5 ▁ 30.5, best 30.5" in out
    assert "Best queries, none, seed1" in out and "seen from above" in out
    worst = out[out.index("Worst queries") :]
    assert int(worst.splitlines()[3].split()[0]) > 1


def test_what_is_no_run_or_is_damaged_is_named(results: Path) -> None:
    with pytest.raises(UserError, match=r"results/metrics/squares has no metrics of a run"):
        show_run(Path("results/metrics/squares"))
    (results / f"curves/{PLACE}/seed1.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"curves/squares/lite.probe/seed1\.jsonl is damaged; run `cmer train` again"):
        show_run(Path(f"results/metrics/{PLACE}"))
