import pytest

from cmer.reporting.measured import RECALLS
from cmer.reporting.paper import printed


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
