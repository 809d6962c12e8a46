"""Figures of recalls: their points, and that everything drawn is inside and readable."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from reporting_cases import D1, D2, OFF, V2, of, require_readable, run

from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import FigureSpec, Files, draw_figure
from cmer.reporting.style import encoded

ABLATION = [run("v1", options=OFF), run("v2", options=V2), run("d1", options=D1), run("d2", options=D2)]


@pytest.fixture
def drawn(write_metrics):
    """Draw a figure of runs with these mRs per seed."""

    def draw(kind: str, runs: list[dict], mrs: list[float], seeds=(1, 2)):
        files = [f for row, mr in zip(runs, mrs, strict=True) for f in write_metrics(row, dict.fromkeys(seeds, mr))]
        spec = {"kind": kind, "runs": runs, "seeds": list(seeds)}
        return draw_figure(FigureSpec.model_validate(spec), Files(metrics=files))

    return draw


def resampled(table: pd.DataFrame, k: int) -> list[float]:
    """95 % interval of R@k, percent: images are drawn with all of their queries."""
    hits = [(rows["greater"] < k).to_numpy() for _, rows in table.groupby("image")]
    draws = np.random.default_rng(0).multinomial(len(hits), [1 / len(hits)] * len(hits), 1000)
    shares = [100 * np.concatenate(np.repeat(np.array(hits), draw, axis=0)).mean() for draw in draws]
    return np.percentile(shares, [2.5, 97.5]).tolist()


def test_recall_curves_are_shares_of_ranks_with_an_interval_around_them(drawn, texts_of, tmp_path) -> None:
    runs = [run("a"), run("b")]
    figure, points = drawn("recall_curves", runs, [30.0, 60.0])
    assert len(points) == 2 * 2 * 50
    ranks = [pd.read_csv(tmp_path / f"rsitmd.a.{seed}.ranks.csv") for seed in (1, 2)]
    for direction in ("t2i", "i2t"):
        kept = [table[(table["protocol"] == "none") & (table["direction"] == direction)] for table in ranks]
        share = np.mean([100 * (table["greater"] < 7).mean() for table in kept])  # no ties
        row = of(points, run="a", direction=direction, k="7")
        assert float(row["recall"]) == pytest.approx(share, abs=0.006)
        assert float(row["low"]) < share < float(row["high"])
        bounds = np.mean([resampled(table, 7) for table in kept], axis=0)
        assert [float(row["low"]), float(row["high"])] == pytest.approx(bounds.tolist(), abs=0.006)
    require_readable(figure, texts_of(figure))


def test_an_ablation_adds_up_to_the_last_recall(drawn, texts_of) -> None:
    figure, points = drawn("ablation", ABLATION, [30.0, 33.0, 32.0, 31.0])
    assert points["step"].tolist() == ["CMER v1", "CMER v2", "CMER d1", "CMER(ours)", "true labels in the queries"]
    assert points["label_protocol"].tolist() == ["none"] * 4 + ["oracle"]
    assert points["mr"].tolist() == ["30.00", "33.00", "32.00", "31.00", "41.00"]
    assert points["delta"][0] == "" and all(float(v) for v in points["delta"][1:])
    assert all(float(row["low"]) <= float(row["delta"]) <= float(row["high"]) for _, row in points[1:].iterrows())
    texts = texts_of(figure)
    assert {"gain", "drop", "owed to test labels"} < {text for text, _ in texts}
    require_readable(figure, texts)


def test_an_options_figure_has_a_line_per_group_in_the_order_of_the_values(drawn, texts_of) -> None:
    fields = [run(f"h{h}f{f}", options=V2 | {"hidden": h, "focus_field": f}) for h in (192, 96) for f in (7, 1)]
    figure, points = drawn("focus_field", fields, [30.0, 31.0, 32.0, 33.0])
    assert points[["line", "focus_field", "mr"]].to_numpy().tolist() == [
        ["hidden 192", "1", "31.00"],
        ["hidden 192", "7", "30.00"],
        ["hidden 96", "1", "33.00"],
        ["hidden 96", "7", "32.00"],
    ]
    require_readable(figure, texts_of(figure))
    queues = [run("v2", options=V2), run("d1", options=D1)]
    figure, points = drawn("queue_length", queues, [30.0, 31.0], seeds=(1,))
    assert points[["queue_batches", "mr", "mr_std"]].to_numpy().tolist() == [
        ["0", "30.00", "one seed"],
        ["4", "31.00", "one seed"],
    ]
    require_readable(figure, texts_of(figure))
    with pytest.raises(UserError, match="p is of method linear_probe, which has no queue_batches"):
        drawn("queue_length", [run("p", "linear_probe")], [30.0])


def test_printed_shows_only_runs_of_a_printed_setting(drawn, texts_of) -> None:
    runs = [
        run("p", "linear_probe", backbone="ViT-B-32"),
        run("d2", options=D2),
        run("l", "linear_probe", backbone="lite"),
    ]
    figure, points = drawn("printed", runs, [34.0, 38.0, 20.0])
    assert points[["run", "label_protocol", "paper_mr", "mr"]].to_numpy().tolist() == [
        ["p", "none", "33.18", "34.00"],
        ["d2", "oracle", "47.96", "48.00"],
    ]
    require_readable(figure, texts_of(figure))
    with pytest.raises(UserError, match="none of the figure's runs has the backbone, system and protocol"):
        drawn("printed", runs[2:], [20.0])
    with pytest.raises(UserError, match="prints no rows on demo"):
        drawn("printed", [run("x", dataset="demo", title="demo")], [20.0])


@pytest.mark.parametrize("format", ["png", "svg"])
def test_the_same_points_give_the_same_bytes(drawn, format: str) -> None:
    assert len({encoded(drawn("ablation", ABLATION, [30.0, 33.0, 32.0, 31.0])[0], format) for _ in range(2)}) == 1


def test_planning_with_any_figure_imports_no_drawing_library() -> None:
    modules = ", ".join(FIGURES.module(name) for name in FIGURES.names() if FIGURES.module(name).startswith("cmer."))
    script = f"import sys, {modules}; print({{'matplotlib', 'sklearn', 'torch', 'jinja2'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
