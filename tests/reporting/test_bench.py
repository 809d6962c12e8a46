"""The rows of the benchmark, from profiles."""

import json

from typer.testing import CliRunner

from cmer.cli.main import app
from cmer.io import write_sealed
from cmer.reporting.bench import bench_rows
from cmer.reporting.drawings.bench import draw
from cmer.reporting.efficiency import read_costs

RUNS = [  # run, method, micro_batch, MACs of four pairs forward and backward, pairs/s, saved bytes at 2 and 4 pairs
    ("b.clip_adapter", "clip_adapter", None, 40, 40, 5.0, 200, 400),
    ("b.clip_adapter_parts", "clip_adapter", 1, 40, 70, 4.0, 110, 120),
    ("b.cmer", "cmer", 2, 40, 10, 9.0, 100, 140),
    ("b.cmer_large", "cmer", None, None, None, None, None, None),
    ("b.cmer_stored", "cmer", None, 4, 4, 40.0, 100, 110),
]
READ = {"b.cmer_stored": {"stored": True, "read_bytes_per_pair": 77, "read_pairs_per_second": 150.0}}


def write_profile(file):
    rows, saved = [], []
    for run, method, micro, forward, backward, speed, low, high in RUNS:
        row = {"run": run, "method": method, "micro_batch": micro, "setting": "today", "parameters": 7}
        row |= {"precision": "float32", "attention": "sdpa", "tokens": 32, "peak_reserved_bytes": None}
        speeds = {f"pairs_per_second{end}": speed for end in ("", "_low", "_high")}
        for batch, kept in ((2, low), (4, high)):
            counts = {"macs_forward": forward, "macs_backward": backward, "saved_bytes": kept, "peak_bytes": kept}
            rows.append(row | speeds | counts | READ.get(run, {}) | {"batch": batch})
        slope = None if high is None else (high - low) / 2
        line = {"bytes_per_pair": slope, "fixed_bytes": None if high is None else low - 2 * slope}
        saved.append({"run": run, "setting": "today", **line})
    data = {"backbone": "b", "device": "cpu: x", "threads": 1, "rows": rows, "saved": saved}
    write_sealed(file, data, "cmer profile")


def test_ratios_are_to_baselines_that_encode_the_whole_batch(tmp_path) -> None:
    write_profile(tmp_path / "b.json")
    called = CliRunner().invoke(app, ["bench", str(tmp_path / "b.json"), "--out", str(tmp_path / "bench.json")])
    assert called.exit_code == 0, called.output
    assert "1.80 (1.60)" in called.output and "8.00 (10.00; 30.00)" in called.output
    found = {row["run"]: row for row in json.loads((tmp_path / "bench.json").read_text())["rows"] if row["batch"] == 4}
    ratios = {"pairs_per_s": 9 / 5, "mac_bound": 80 / 50, "read_bound": None, "saved_bytes_per_pair": 20 / 100}
    assert found["cmer"] == {
        **{"backbone": "b", "run": "cmer", "method": "cmer", "engine": "online, parts of 2"},
        **{"setting": "today", "batch": 4, "read_pairs_per_s": None, "read_bytes_per_pair": None},
        **{"params": 7, "pairs_per_s": 9.0, "saved_bytes_per_pair": 20, "saved_bytes_fixed": 60, "peak_bytes": 140},
        **{"macs_per_pair": 12.5, "device": "cpu: x", "threads": 1, "ratios": {"clip_adapter": ratios}},
    }
    assert found["clip_adapter"]["engine"] == "online"
    stored = found["cmer_stored"]
    assert (stored["engine"], stored["read_pairs_per_s"], stored["read_bytes_per_pair"]) == ("stored", 150, 77)
    assert stored["ratios"]["clip_adapter"]["read_bound"] == 150 / 5
    assert set(found["clip_adapter_parts"]["ratios"]) == {"clip_adapter"}
    assert set(found["cmer_large"]["ratios"]["clip_adapter"].values()) == {None}


def test_the_chart_shows_what_was_measured_and_what_limits_it(tmp_path) -> None:
    write_profile(tmp_path / "b.json")
    rows = bench_rows(read_costs([tmp_path / "b.json"]))
    speed, kept = draw(rows).axes
    shown = [label.get_text() for label in speed.get_yticklabels()][::-1]
    assert shown[0] == "b, today, batch 4"
    assert shown[3] == "cmer, online, parts of 2" and shown[5] == "cmer_stored, stored"
    points = {
        (label, line.get_marker(), line.get_color()): line.get_xdata()[0]
        for line in speed.lines
        for label in [shown[::-1][int(line.get_ydata()[0])]]
        if line.get_marker() != "None"
    }
    assert {value for (label, *_), value in points.items() if label == shown[5]} == {8, 10, 30}
    assert {value for (label, *_), value in points.items() if label == shown[3]} == {9 / 5, 80 / 50}
    assert not [label for label, *_ in points if label.startswith("cmer_large")], "nothing was measured"
    assert not kept.texts
    assert sorted(line.get_xdata()[0] for line in kept.lines if line.get_marker() != "None") == [0.05, 0.05, 0.2, 1]


def test_a_run_that_keeps_nothing_per_pair_is_drawn_as_zero() -> None:
    row = {"backbone": "b", "setting": "today", "batch": 4, "engine": "stored", "run": "parts"}
    nothing = {"pairs_per_s": None, "mac_bound": None, "read_bound": None, "saved_bytes_per_pair": 0.0}
    _, kept = draw([row | {"ratios": {"clip_adapter": nothing}}]).axes
    assert [text.get_text() for text in kept.texts] == ["0"]


def test_the_chart_is_beside_the_rows(tmp_path) -> None:
    write_profile(tmp_path / "b.json")
    called = CliRunner().invoke(app, ["bench", str(tmp_path / "b.json"), "--out", str(tmp_path / "bench.json")])
    assert called.exit_code == 0, called.output
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "bench.svg").read_bytes()
