"""Killed workflows and workflows beside each other end with the bytes of an undisturbed one.

For more kills than here: python tests/workflow/kill.py --kills 20
"""

import time
from pathlib import Path

import pytest
from kill import TARGETS, Copy, trial

pytestmark = pytest.mark.slow


def test_killed_workflows_end_with_the_same_bytes(tmp_path: Path) -> None:
    outcome = trial(kills=len(TARGETS), seed=0, folder=tmp_path)
    assert set(outcome.struck) == set(TARGETS)
    assert outcome.states
    assert not any(outcome.differences), outcome.differences


def test_two_workflows_at_once_share_what_they_can(tmp_path: Path) -> None:
    copy = Copy.make(tmp_path / "project")
    first = copy.start()
    while not any((copy.folder / ".snakemake/locks").glob("*")):
        assert first.poll() is None
        time.sleep(0.05)
    same, other = copy.start(), copy.start("--config", "results=results/other")
    assert same.wait() == 1
    assert "Directory cannot be locked" in (copy.folder / "output.txt").read_text()
    assert (first.wait(), other.wait()) == (0, 0), (copy.folder / "output.txt").read_text()[-4000:]
    made = copy.artifacts()
    mine = {path.removeprefix("results/kill/"): sha for path, sha in made.items() if path.startswith("results/kill/")}
    theirs = {path.removeprefix("results/other/"): sha for path, sha in made.items() if "results/other/" in path}
    assert mine == theirs and "table1.csv" in mine
    assert len(list((copy.folder / "work/features").glob("*/manifest.json"))) == 2  # one a backbone
