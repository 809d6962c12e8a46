import shutil
from importlib import resources

import pytest

from cmer.config.experiment import parse
from cmer.plan import Plan
from cmer.reporting.metrics import RECALLS
from cmer.reporting.paper import printed, printed_file


@pytest.mark.parametrize(("number", "rows"), [(1, 23), (2, 23), (3, 9), (4, 4), (5, 9), (6, 4)])
def test_every_row_is_there(number, rows):
    table = printed(number)
    assert len(table) == rows
    assert not table.drop(columns="params_m", errors="ignore").eq("").any().any()


@pytest.mark.parametrize("number", [1, 2])
def test_printed_mr_is_the_mean_of_the_six(number):
    table = printed(number)
    error = (table[list(RECALLS)].astype(float).mean(axis=1) - table["mr"].astype(float)).abs()
    wrong = table.loc[error > 0.00501, "method"].tolist()
    assert wrong == ([] if number == 1 else ["Single Language"])  # 27.4267 is printed as 27.42


@pytest.mark.parametrize("number", [5, 6])
def test_printed_mr_is_a_sixth_of_the_two_sums(number):
    table = printed(number).astype(float)
    assert ((table["iqt"] + table["tqi"]) / 6 - table["mr"]).abs().max() < 0.00501


def test_tables_agree_with_each_other():
    ablation, adapters, queues = printed(4), printed(5), printed(6)
    mr = ablation.set_index("ablation")["mr_rsitmd"]
    chosen = adapters[(adapters["hidden_dim"] == "192") & (adapters["focus_field"] == "2")]
    assert chosen["mr"].tolist() == [mr["v2"]] == queues.loc[queues["queue_length_batches"] == "0", "mr"].tolist()
    assert queues.loc[queues["queue_length_batches"] == "4", "mr"].tolist() == [mr["d1"]]
    main = printed(1)
    assert main.loc[(main["method"] == "CMER(ours)") & (main["backbone_vision"] == "ViT-B-16"), "mr"].item() == mr["d2"]


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        (1, ["table1", "table2", "table3", "accuracy_cost"]),  # Tables 1 and 2 share a file
        (3, ["table3"]),
        (4, ["table4"]),
        (5, ["table5"]),
        (6, ["table6"]),
    ],
)
def test_a_corrected_printed_value_replans_what_holds_it(number, changed, tmp_path, monkeypatch):
    tables = [f"table{number}" for number in range(1, 7)]
    plan = Plan(
        parse(
            {
                "datasets": {"demo": {"source": "demo"}},
                "backbones": {"tiny": {"kind": "tiny"}},
                "runs": {"cmer": {"method": "cmer"}},
                "run_defaults": {"datasets": ["demo"], "backbones": ["tiny"]},
                "tables": {table: {"runs": ["*"]} for table in tables},
                "figures": {"accuracy_cost": {"runs": ["*"]}},
            }
        )
    )

    def codes():
        return {name: plan.table_code(name) for name in tables} | {"accuracy_cost": plan.figure_code("accuracy_cost")}

    with resources.as_file(resources.files("cmer.reporting") / "paper") as folder:
        copy = shutil.copytree(folder, tmp_path / "paper")
    monkeypatch.setattr("cmer.plan.printed_file", lambda number: copy / printed_file(number).name)
    before = codes()
    file = copy / printed_file(number).name
    *lines, last = file.read_text().splitlines()
    file.write_text("\n".join([*lines, last.replace(last[-1], "0" if last[-1] != "0" else "1"), ""]))
    after = codes()
    assert [name for name in before if before[name] != after[name]] == changed
