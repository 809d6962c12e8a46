import io
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting_cases import D2, OFF, run

from cmer.data.frames import TABLE, read_frame
from cmer.reporting.base import Files, TableSpec, build_table
from cmer.reporting.show import MOST_ROWS, WIDTH, show

MEASURED = Path(__file__).parents[2] / "docs" / "measured" / "rsicd_part"


@pytest.fixture
def lines(capsys, monkeypatch):
    """What `show` prints on so many columns; on none, where the output is a file."""

    def printed(table, title="title", columns=None, **options):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", str(columns))
        show(table, title, **options)
        return capsys.readouterr().out.splitlines()

    return printed


@pytest.fixture
def table(write_metrics):
    """A table of runs, each with an mR."""

    def build(kind, *rows, protocols=("none",)):
        files = [file for row in rows for file in write_metrics(row, {1: 30.0})]
        spec = {"kind": kind, "runs": list(rows), "protocols": list(protocols), "seeds": [1]}
        return build_table(TableSpec.model_validate(spec), Files(metrics=files))

    return build


def test_prints_the_main_columns_and_no_empty_ones(capsys):
    spec = TableSpec.model_validate({"kind": "table2", "runs": [], "protocols": ["none"], "seeds": [1]})
    show(build_table(spec, Files()), "Table 2")
    out = capsys.readouterr().out
    assert "Table 2" in out
    assert "20.61" in out
    assert "oracle hold the true scene label" in out
    assert "delta" not in out  # nothing was measured


@pytest.mark.parametrize("columns", [None, 40, 80, 100, 170])
@pytest.mark.parametrize("name", ["table2", "table3"])
@pytest.mark.parametrize("printed", [False, True])
def test_a_table_fits_its_terminal_without_a_broken_cell(lines, name, columns, printed):
    table = read_frame(MEASURED / f"{name}.csv", TABLE)
    out = lines(table, columns=columns, printed=printed)
    assert max(map(len, out)) <= (columns or WIDTH)
    assert "…" not in "".join(out)
    start = next(number for number, line in enumerate(out) if line.startswith("─")) + 1
    shown = table if printed else table[table["source"] != "paper"]
    methods = sorted(line.partition("  ")[0] for line in out[start : start + len(shown)])
    assert methods == sorted(shown["method"])
    if columns != 40:
        cells = " ".join(out).split()
        assert set(shown["run"]) - {""} <= set(cells)


def test_a_wider_terminal_shows_more_columns(lines):
    found = {columns: lines(read_frame(MEASURED / "table2.csv", TABLE), columns=columns) for columns in (80, 100, 170)}
    assert [any("22.04" in line for line in out) for out in found.values()] == [False, False, True]  # R@10
    assert all(any("13.70" in line for line in out) for out in found.values())


def test_all_recalls_are_shown_or_none(lines):
    for columns in range(60, 170, 5):
        header = lines(read_frame(MEASURED / "table2.csv", TABLE), columns=columns)[1:5]
        assert sum(line.count("i2t") + line.count("t2i") for line in header) in (0, 6)


def test_what_all_rows_share_is_said_once(lines):
    out = lines(read_frame(MEASURED / "table2.csv", TABLE))
    words = "Throughout: dataset RSICD, backbone lite (EfficientNet-Lite0 + MiniLM), train images 1500, one seed."
    assert words in out
    assert sum("RSICD" in line for line in out) == 1


def test_measured_rows_come_first_and_printed_ones_on_request(lines, table):
    shown = table("table1", run("b.cmer", options=D2, backbone="lite"))
    out = lines(shown)
    assert not any("SWAN" in line for line in out)
    assert "23 printed rows on other datasets or backbones are hidden; --printed shows them." in out
    out = lines(shown, printed=True)
    assert sum("ViT-" in line or "ResNet" in line for line in out) >= 20
    order = [next(i for i, line in enumerate(out) if word in line) for word in ("b.cmer", "Scene label only", "SWAN")]
    assert order == sorted(order)
    assert not any("hidden" in line for line in out)


def test_printed_rows_of_the_same_dataset_and_backbone_are_shown(lines, table):
    out = lines(table("table1", run("b.cmer", options=D2, backbone="ViT-L-14")))
    assert [line.split()[0] for line in out if "8.65" in line] == ["CLIP-lora"]  # its parameters on ViT-L-14
    assert any(line.startswith("19 printed rows") for line in out)
    assert any("printed ones have no run" in line for line in out)
    out = lines(table("table1", run("b.cmer", options=D2, backbone="ViT-L-14", title="demo")))
    assert any(line.startswith("23 printed rows") for line in out)


def test_printed_rows_of_an_ablation_are_shown_where_its_setting_is_measured(lines, table):
    v1 = run("b.v1", options=OFF, dataset="rsicd", title="RSICD")
    out = lines(table("table4", v1))
    assert [line.split()[0] for line in out if line.startswith(("v1", "v2", "d1", "d2"))] == ["v1", "v2", "d1", "d2"]
    out = lines(table("table4", v1 | {"backbone_printed": "lite"}))
    assert [line.split()[0] for line in out if line.startswith(("v1", "v2", "d1", "d2"))] == ["v1"]
    assert "3 printed rows on other datasets or backbones are hidden; --printed shows them." in out


def test_brackets_are_no_markup(lines):
    rows = pd.DataFrame({"method": ["[red]probe[/]"], "run": ["a"], "mr": ["1.00"]})
    out = lines(rows, "[bold]results[/] [/table]")
    assert out[0] == "[bold]results[/] [/table]"
    assert any(line.startswith("[red]probe[/]") for line in out)


def test_a_long_title_is_one_line(lines):
    title = "/a/folder" * 30
    assert lines(pd.DataFrame({"method": ["a"], "run": ["b"]}), title)[0] == title


CELLS = (
    st.text(max_size=30)
    | st.integers()
    | st.sampled_from(["", "measured", "paper", "[/]", "\x1b[31m", "ü, 码头 🌊", "x" * 500])
)
NAMES = st.sampled_from(
    ["method", "run", "source", "mr", "dataset", "backbone", "mr_std", "paper_setting", "[/]", "", "ü"]
)


@given(names=st.lists(NAMES, unique=True), data=st.data(), columns=st.integers(20, 200))
@settings(deadline=None)
def test_any_table_is_printed(names, data, columns):
    rows = data.draw(st.lists(st.tuples(*[CELLS] * len(names)), max_size=5))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", str(columns))
        show(pd.DataFrame(rows, columns=names), "[bold]any[/] :ship:")
    first, *_ = out.getvalue().splitlines()
    assert first == "[bold]any[/] :ship:" and "\x1b" not in out.getvalue()


def test_a_long_table_ends_with_the_number_of_further_rows(lines):
    out = lines(pd.DataFrame({"image_id": range(MOST_ROWS + 2_500)}))
    assert "The file has 2,500 more rows." in out
    assert len(out) < MOST_ROWS + 10 and f"{MOST_ROWS - 1}" in out[-2] and "image" in out[1]


def test_a_table_without_rows_says_so(lines):
    assert lines(pd.DataFrame({"method": []}))[-1] == "It has no rows."
