"""Rows of systems with towers of their own, and of systems that score pairs one by one."""

import pytest
from reporting_cases import of, run

from cmer.config.experiment import parse
from cmer.io import read_sealed, write_sealed
from cmer.plan import Plan
from cmer.registry import METHOD_OPTIONS
from cmer.reporting.base import Files, TableSpec, build_table


def table(row, files):
    spec = {"kind": "table1", "runs": [row], "protocols": ["none", "oracle"], "seeds": [1]}
    return build_table(TableSpec.model_validate(spec), Files(metrics=files))


@pytest.mark.parametrize(("method", "printed", "mr"), [("pir", "PIR", "38.24"), ("ieft", "IEFT", "35.44")])
def test_the_full_size_is_the_printed_system(write_metrics, method, printed, mr) -> None:
    row = run(method, method, backbone=METHOD_OPTIONS.get(method)().towers)
    measured = of(table(row, write_metrics(row, {1: 40.0})), source="measured", label_protocol="none")
    assert (measured["method"], measured["paper_mr"]) == (printed, mr)
    assert measured["status"] == "same setting as the printed row"


def test_a_table_names_the_towers_as_the_paper_prints_them() -> None:
    config = parse({
        "datasets": {"demo": {"source": "demo"}},
        "run_defaults": {"datasets": ["demo"]},
        "runs": {"a": {"method": "pir"}, "b": {"method": "ieft", "options": {"blocks": 4}}, "c": {"method": "cmpagl"}},
        "tables": {"table1": {"runs": ["*"]}},
    })  # fmt: skip
    rows = TableSpec.model_validate_json(Plan(config).table_spec("table1")).runs
    assert [row.backbone_printed for row in rows] == ["Swin-T+ResNet50", "own towers", "own towers"]


def test_the_note_says_how_many_pairs_were_scored(write_metrics) -> None:
    row = run("ieft", "ieft", backbone="Vision Trans")
    (file,) = write_metrics(row, {1: 40.0})
    metrics = read_sealed(file, "cmer evaluate")
    metrics["record"]["embedding"] = {"pair_forwards": {"none": 1020, "oracle": 1140}}
    write_sealed(file, metrics, "cmer evaluate")
    notes = table(row, [file]).set_index("label_protocol")["note"][-3:]
    assert notes["none"] == "scores 1,020 pairs one by one"
    assert notes["oracle"].iloc[0] == "uses test labels; scores 1,140 pairs one by one"
