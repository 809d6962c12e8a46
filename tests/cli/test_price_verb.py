import json

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from cmer.cli.price import app
from cmer.errors import UserError

CONFIG = {
    "datasets": {"rsicd": {"source": "rsicd"}},
    "backbones": {"tiny": {"kind": "tiny", "printed": "tiny"}},
    "runs": {"linear_probe": {"method": "linear_probe", "datasets": ["rsicd"], "backbones": ["tiny"]}},
}


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_rows_go_to_a_file_and_a_table_to_the_terminal(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    printed = call(tmp_path / "mine.yaml", "--tflops", "2", "--out", tmp_path / "price.csv")
    assert "tiny.linear_probe" in printed and "features of tiny" in printed and "at 2 TFLOP/s" in printed
    call(tmp_path / "mine.yaml", "--out", tmp_path / "price.json")
    table, rows = pd.read_csv(tmp_path / "price.csv"), json.loads((tmp_path / "price.json").read_text())
    assert list(table["run"]) == [row["run"] for row in rows] == ["tiny.linear_probe", "features of tiny"]
    assert (table["tflops"] == 2).all() and {row["tflops"] for row in rows} == {15}
    for half, whole in zip(rows, table.to_dict("records"), strict=True):
        assert whole["gpu_hours"] == pytest.approx(half["gpu_hours"] * 15 / 2, rel=1e-4)
        parts = sum(whole[f"{part}_gmacs"] for part in ("training", "validation", "test", "extraction"))
        assert whole["gpu_hours"] == pytest.approx(2 * parts * 1e9 / 2e12 / 3600, rel=1e-4)


def test_another_kind_of_file_is_refused_first(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(UserError, match=r"price\.txt: the name must end in \.csv or \.json"):
        call(tmp_path / "mine.yaml", "--out", tmp_path / "price.txt")
