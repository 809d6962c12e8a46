"""The rows of config/paper.yaml beside the printed ones, from metrics of made-up recalls."""

import json
from pathlib import Path

import pytest

from cmer.config.experiment import read
from cmer.plan import OWN_TOWERS, Plan
from cmer.reporting.base import Files, TableSpec
from cmer.reporting.paper import DATASET, printed
from cmer.reporting.tables.table1 import Table1
from cmer.reporting.tables.table2 import Table2
from cmer.reporting.tables.table3 import Table3

PRINTED = {"amfmn": "AMFMN", "mcrn": "MCRN", "hvsa": "HVSA", "swan": "SWAN", "pir": "PIR", "ieft": "IEFT"}
VARIANTS = {"hvsa_trained_words", "swan_released"}


@pytest.fixture(scope="module")
def paper() -> Plan:
    return Plan(read([Path(__file__).parents[2] / "config/paper.yaml"]))


def own(spec: str) -> dict:
    """The table's spec with the systems alone that bring their own towers, and one seed."""
    found = json.loads(spec)
    return found | {"runs": [run for run in found["runs"] if "." not in run["name"]], "seeds": found["seeds"][:1]}


@pytest.mark.parametrize(("table", "number"), [(Table1, 1), (Table2, 2)])
def test_published_systems_are_compared_with_their_printed_rows_and_variants_are_not(
    paper, table, number, write_metrics
) -> None:
    spec = own(paper.table_spec(f"table{number}"))
    assert {run["name"] for run in spec["runs"]} == set(PRINTED) | VARIANTS
    files = [file for run in spec["runs"] for file in write_metrics(run, {2022: 30.0})]
    result = table().build(TableSpec.model_validate(spec), Files(metrics=files))
    rows = result[(result["source"] == "measured") & (result["label_protocol"] == "none")].set_index("run")
    known = printed(number).set_index("method")
    for run, method in PRINTED.items():
        assert rows.loc[run, "method"] == method
        assert rows.loc[run, "backbone"] == known.loc[method, "backbone_vision"]
        assert rows.loc[run, "paper_mr"] == known.loc[method, "mr"]
        assert float(rows.loc[run, "delta_mr"]) == pytest.approx(30 - float(known.loc[method, "mr"]), abs=0.005)
        assert rows.loc[run, "dataset"] == DATASET[number]
    others = result[(result["source"] == "measured") & ~result["run"].isin(PRINTED)]
    oracle = result[(result["source"] == "measured") & (result["label_protocol"] == "oracle")]
    assert set(others["run"]) == VARIANTS and set(oracle["run"]) == set(PRINTED) | VARIANTS
    assert set(others["delta_mr"].fillna("")) == set(oracle["delta_mr"].fillna("")) == {""}
    status = result[result["source"] == "paper"].set_index("method")["status"]
    assert all(status[method] == f"run here: {run}" for run, method in PRINTED.items())


def test_the_systems_are_profiled_in_one_job_and_have_rows_of_their_costs(paper, write_profile) -> None:
    profiled = json.loads(paper.profile_spec(OWN_TOWERS))
    assert {row["run"]: row["method"] for row in profiled["rows"]} == {name: name for name in PRINTED}
    steps = [{"run": row["run"], "method": row["method"]} for row in profiled["rows"]]
    spec = own(paper.table_spec("table3"))
    result = Table3().build(TableSpec.model_validate(spec), Files(efficiency=[write_profile(OWN_TOWERS, steps)]))
    rows = result[result["source"] == "measured"].set_index("run")
    assert {name: rows.loc[name, "method"] for name in PRINTED} == PRINTED
    assert set(rows["status"]) == {"run here"} and (rows["params_m"] == "2.72").all()
