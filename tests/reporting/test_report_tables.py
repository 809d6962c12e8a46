"""Results tables as the report shows them."""

import pandas as pd
from reporting_cases import run

from cmer.reporting.base import Files, TableSpec, build_table
from cmer.reporting.report.tables import Cell, Row, View, view


def shown(rows: list[dict], files: list, links: dict[tuple[str, str], str] | None = None) -> View:
    spec = {"kind": "table1", "runs": rows, "protocols": ["none", "oracle"], "seeds": [1, 2, 3]}
    table = build_table(TableSpec.model_validate(spec), Files(metrics=files))
    return view("table1", "Systems", table, links or {})


def cell(found: View, row: Row, heading: str):
    return row.cells[found.headings.index(heading) - 1]


def test_measured_rows_precede_the_papers_and_lead_to_their_pages(write_metrics):
    probe = run("vit_b_32.linear_probe", "linear_probe", backbone="ViT-B-32")
    found = shown([probe], write_metrics(probe, {1: 33.0, 2: 34.0, 3: 35.0}), {(probe["name"], "RSITMD"): "run-x"})
    kinds = [row.kind for row in found.rows]
    assert kinds == ["measured", "measured", "control", *["paper"] * 23]
    assert [row.link for row in found.rows[:3]] == ["run-x", "run-x", ""]
    assert (found.rows[0].name.text, found.rows[0].name.detail) == ("Linear probe", "vit_b_32.linear_probe")
    assert found.rows[0].filters == {"dataset": "RSITMD", "backbone": "ViT-B-32", "label_protocol": "none"}
    assert {"none", "oracle"} <= set(found.filters["label_protocol"])
    assert "dataset" not in found.filters  # all rows have the same


def test_a_cell_has_the_value_its_spread_and_a_key_to_sort_by(write_metrics):
    probe = run("vit_b_32.linear_probe", "linear_probe", backbone="ViT-B-32")
    found = shown([probe], write_metrics(probe, {1: 33.0, 2: 34.0, 3: 35.0}))
    mr = cell(found, found.rows[0], "mR")
    assert (mr.text, mr.detail, mr.key) == ("34.00 ± 1.00", "32.50 to 35.40", "34.00")
    beside = cell(found, found.rows[0], "ours minus paper")  # the paper's 33.18 is within 32.50 to 35.40
    assert (beside.text, beside.tone) == ("+0.82", "noise")


def test_noise_is_what_the_interval_says_on_the_papers_side(write_metrics):
    probe = run("vit_b_32.linear_probe", "linear_probe", backbone="ViT-B-32")
    found = shown([probe], write_metrics(probe, {1: 34.63, 2: 34.63, 3: 34.63}))  # 33.13 to 36.03, and 33.18 printed
    beside = cell(found, found.rows[0], "ours minus paper")
    assert (beside.text, beside.tone) == ("+1.45", "noise")


def test_a_difference_has_a_tone_only_outside_the_noise(write_metrics):
    probe = run("vit_b_32.linear_probe", "linear_probe", backbone="ViT-B-32")
    tones = {
        mr: cell(found, found.rows[0], "ours minus paper").tone
        for mr in (20.0, 50.0)
        for found in [shown([probe], write_metrics(probe, {1: mr, 2: mr, 3: mr}))]
    }
    assert tones == {20.0: "worse", 50.0: "better"}


def test_the_difference_to_the_best_run_is_grey_unless_supported():
    rows = [
        {"run": "a", "mr": "1.00", "delta_best": "-0.50", "delta_best_ci_low": "-0.9", "delta_best_ci_high": "-0.1",
         "supported": "yes (one seed)"},
        {"run": "b", "mr": "1.20", "delta_best": "-0.30", "delta_best_ci_low": "-0.9", "delta_best_ci_high": "+0.1",
         "supported": "no"},
    ]  # fmt: skip
    found = view("t", "T", pd.DataFrame(rows), {})
    assert [cell(found, row, "minus best").tone for row in found.rows] == ["worse", "noise"]
    assert cell(found, found.rows[0], "minus best").detail == "-0.9 to -0.1"


def test_a_difference_between_two_runs_has_its_interval_and_is_grey_unless_supported():
    bounds = [("+0.50", "+0.1", "+0.9", "yes"), ("-0.50", "-0.9", "-0.1", "yes"), ("+0.30", "-0.1", "+0.9", "no")]
    rows = [
        {"run": "a", "compared_with": "b", "mr": "1.00", "mr_compared": "2.00", "difference": value, "ci_low": low,
         "ci_high": high, "supported": supported}
        for value, low, high, supported in bounds
    ]  # fmt: skip
    found = view("differences", "D", pd.DataFrame(rows), {})
    assert found.headings == ["run", "mR", "compared with", "mR compared", "difference"]
    cells = [cell(found, row, "difference") for row in found.rows]
    assert [(each.text, each.detail, each.key) for each in cells] == [
        (value, f"{low} to {high}", value) for value, low, high, _ in bounds
    ]
    assert [each.tone for each in cells] == ["better", "worse", "noise"]


def test_empty_columns_are_left_out_and_the_protocol_is_always_shown(write_metrics):
    probe = run("a", "linear_probe", dataset="demo", title="demo", backbone="lite")
    found = shown([probe], write_metrics(probe, {1: 33.0, 2: 34.0, 3: 35.0}))
    assert "ours minus paper" not in found.headings
    assert found.headings[:2] == ["method", "mR"] and "label protocol" not in found.headings
    assert [row.filters["label_protocol"] for row in found.rows[:2]] == ["none", "oracle"]
    assert all(len(row.cells) == len(found.headings) - 1 for row in found.rows)


def test_numbers_are_told_from_words() -> None:
    assert all(Cell(key, key=key).numeric for key in ("12", "-1.25", "+0.4", "0"))
    assert not any(Cell(key, key=key).numeric for key in ("", "none", "1 2", "1.2.3", "lite.cmer"))
