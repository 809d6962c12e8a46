"""The rows of the benchmark, from profiles."""

import json

from typer.testing import CliRunner

from cmer.cli.main import app
from cmer.io import write_sealed

RUNS = [  # run, method, micro_batch, MACs of four pairs forward and backward, pairs/s, saved bytes at 2 and 4 pairs
    ("b.clip_adapter", "clip_adapter", None, 40, 40, 5.0, 200, 400),
    ("b.clip_adapter_parts", "clip_adapter", 1, 40, 70, 4.0, 110, 120),
    ("b.cmer", "cmer", 2, 40, 10, 9.0, 100, 140),
    ("b.cmer_large", "cmer", None, None, None, None, None, None),
]


def write_profile(file):
    rows, saved = [], []
    for run, method, micro, forward, backward, speed, low, high in RUNS:
        row = {"run": run, "method": method, "micro_batch": micro, "setting": "today", "parameters": 7}
        row |= {"precision": "float32", "attention": "sdpa", "tokens": 32, "peak_reserved_bytes": None}
        speeds = {f"pairs_per_second{end}": speed for end in ("", "_low", "_high")}
        for batch, kept in ((2, low), (4, high)):
            counts = {"macs_forward": forward, "macs_backward": backward, "saved_bytes": kept, "peak_bytes": kept}
            rows.append(row | speeds | counts | {"batch": batch})
        slope = None if high is None else (high - low) / 2
        line = {"bytes_per_pair": slope, "fixed_bytes": None if high is None else low - 2 * slope}
        saved.append({"run": run, "setting": "today", **line})
    data = {"backbone": "b", "device": "cpu: x", "threads": 1, "rows": rows, "saved": saved}
    write_sealed(file, data, "cmer profile")


def test_ratios_are_to_baselines_that_encode_the_whole_batch(tmp_path) -> None:
    write_profile(tmp_path / "b.json")
    called = CliRunner().invoke(app, ["bench", str(tmp_path / "b.json"), "--out", str(tmp_path / "bench.json")])
    assert called.exit_code == 0, called.output
    assert "1.80 (1.60)" in called.output
    found = {row["run"]: row for row in json.loads((tmp_path / "bench.json").read_text())["rows"] if row["batch"] == 4}
    ratios = {"pairs_per_s": 9 / 5, "mac_bound": 80 / 50, "saved_bytes_per_pair": 20 / 100}
    assert found["cmer"] == {
        **{"backbone": "b", "run": "cmer", "method": "cmer", "engine": "micro_batch 2", "setting": "today", "batch": 4},
        **{"params": 7, "pairs_per_s": 9.0, "saved_bytes_per_pair": 20, "saved_bytes_fixed": 60, "peak_bytes": 140},
        **{"macs_per_pair": 12.5, "device": "cpu: x", "threads": 1, "ratios": {"clip_adapter": ratios}},
    }
    assert found["clip_adapter"]["engine"] == "plain"
    assert set(found["clip_adapter_parts"]["ratios"]) == {"clip_adapter"}
    assert set(found["cmer_large"]["ratios"]["clip_adapter"].values()) == {None}
