from cmer.reporting.base import Files, TableSpec, build_table
from cmer.reporting.show import show


def test_prints_the_main_columns_and_no_empty_ones(capsys):
    spec = TableSpec.model_validate({"kind": "table2", "runs": [], "protocols": ["none"], "seeds": [1]})
    show(build_table(spec, Files()), "Table 2")
    out = capsys.readouterr().out
    assert "Table 2" in out
    assert "20.61" in out
    assert "oracle hold the true scene label" in out
    assert "delta" not in out  # nothing was measured
