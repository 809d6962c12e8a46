"""Profiles of several runs."""

from contextlib import contextmanager
from typing import ClassVar

import pytest
from profiling_cases import spec

from cmer.profiling.profile import profile


class Told:
    """A worker without a process: notes what it is asked, and answers by a script."""

    log: ClassVar[list] = []

    def __init__(self, spec, row):
        self.row, self.alive, self.turns = row, True, 0
        Told.log.append(("start", row.run))

    def ask(self, name, *arguments):
        Told.log.append((name, self.row.run, *arguments))
        if name == "device":
            return "cpu: abacus"
        if name == "count":
            size = arguments[1]
            return {"saved_bytes": 1000 + 300 * size, "peak_bytes": 7 if arguments[2] else None}
        self.turns += 1
        return [0.5 * self.turns, 1.0 * self.turns, 9.0]

    def close(self):
        Told.log.append(("close", self.row.run))


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr("cmer.profiling.profile.Worker", Told)
    Told.log = []


def test_runs_take_turns_in_every_round(told) -> None:
    result = profile(spec("cmer", "clip_lora", "clip_adapter", rounds=2, steps=3))
    runs = ["tiny.cmer", "tiny.clip_lora", "tiny.clip_adapter"]
    cases = [(setting, size) for setting in ("paper_like", "today") for size in (2, 4)]
    timed = [entry[1:] for entry in Told.log if entry[0] == "time"]
    assert timed == [(run, *case, 3) for case in cases for _ in range(2) for run in runs]
    calls = [entry[0] for entry in Told.log]
    assert calls.index("time") > max(i for i, call in enumerate(calls) if call == "count")
    assert calls[-3:] == ["close"] * 3
    shown = [(row["run"], row["setting"], row["batch"]) for row in result["rows"]]
    assert shown == [(run, *case) for run in runs for case in cases]
    first = result["rows"][0]
    assert first["method"] == "cmer" and first["options"]["hidden"] == 24
    # Rounds of 0.5, 1, 9 and 1, 2, 9 seconds: medians 1 and 2, and 1.5 of all six.
    speeds = [first["pairs_per_second_low"], first["pairs_per_second"], first["pairs_per_second_high"]]
    assert speeds == [2 / 2, pytest.approx(2 / 1.5), 2 / 1]
    assert first["steps"] == 6
    assert result["device"] == "cpu: abacus"
    assert result["saved"][1] == {
        "run": "tiny.cmer",
        "setting": "today",
        "bytes_per_pair": 300,
        "fixed_bytes": 1000,
    }
    assert len(result["saved"]) == 6


def test_only_the_larger_batch_is_timed_if_asked(told) -> None:
    result = profile(spec("cmer", "clip_lora", timed="larger", rounds=2, batches=[4, 2]))
    assert {entry[3] for entry in Told.log if entry[0] == "time"} == {4}
    assert [entry[3:] for entry in Told.log if entry[0] == "count"] == 2 * (2 * [(4, True)] + 2 * [(2, False)])
    for row in result["rows"]:
        large = row["batch"] == 4
        assert (row["pairs_per_second"] is not None) == (row["peak_bytes"] is not None) == large
        assert row["steps"] == 6 * large
    assert {line["bytes_per_pair"] for line in result["saved"]} == {300}


def test_a_backbone_that_is_only_counted_has_no_memory_and_no_speed(told) -> None:
    result = profile(spec("cmer", "clip_lora", count_only=True))
    empty = ("peak_bytes", "pairs_per_second", "pairs_per_second_low", "pairs_per_second_high")
    assert {row[name] for row in result["rows"] for name in empty} == {None}
    assert {row["steps"] for row in result["rows"]} == {0}
    calls = [entry[0] for entry in Told.log if entry[0] != "count"]
    assert calls == ["start", "device", "close"] * 2  # one process after the other


def test_a_profile_with_gaps_is_whole(told, monkeypatch) -> None:
    def ask(self, name, *arguments):
        if name == "count" and arguments[1] == 4:
            return {"saved_bytes": None, "peak_bytes": None}
        return [] if name == "time" and arguments[1] == 4 else answered(self, name, *arguments)

    answered = Told.ask
    monkeypatch.setattr(Told, "ask", ask)
    result = profile(spec("cmer", settings=["today"]))
    assert [row["pairs_per_second"] is None for row in result["rows"]] == [False, True]
    assert result["saved"] == [{"run": "tiny.cmer", "setting": "today", "bytes_per_pair": None, "fixed_bytes": None}]


@pytest.mark.parametrize("options", [{}, {"timed": "larger"}, {"count_only": True}])
def test_progress_ends_at_its_total(told, monkeypatch, options) -> None:
    shown = []

    @contextmanager
    def bar(*opened):
        shown.append(opened)
        yield lambda *advance: shown.append(advance)

    monkeypatch.setattr("cmer.profiling.profile.progress", bar)
    profile(spec("cmer", "clip_lora", rounds=3, **options))
    (what, total), *advances = shown
    assert "tiny" in what and sum(count for count, _ in advances) == len(advances) == total
    assert [note for _, note in advances] == [f"{a[2]} {a[3]}" for a in Told.log if a[0] in ("count", "time")]
