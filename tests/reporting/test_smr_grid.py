import io

import pytest
from PIL import Image
from reporting_cases import run

from cmer.errors import UserError
from cmer.io import read_sealed, write_sealed
from cmer.reporting.base import FigureSpec, Files, draw_figure

EXPONENTS = [(one, two) for one in (0.0, 0.5, 1.0) for two in (0.0, 2.0)]


@pytest.fixture
def reranked(write_metrics):
    """A reranked run of two seeds, whose validation mR is 10 + 3 γ₁ - γ₂ + seed; seed 2 chose another setting."""
    row = run("lite.cmer.smr", dataset="rsicd", title="RSICD") | {"reranker": {"kind": "smr"}}
    files = write_metrics(row, {1: 20.0, 2: 21.0})
    for seed, file in enumerate(files, start=1):
        metrics = read_sealed(file, "cmer evaluate")
        grid = [{"gamma1": one, "gamma2": two, "val_mr": 10 + 3 * one - two + seed} for one, two in EXPONENTS]
        chosen = {"gamma1": 1.0 / seed, "gamma2": 0.0}
        metrics["record"] |= {"reranking": {"name": row["name"], "chosen": chosen, "grid": grid}}
        write_sealed(file, metrics, "cmer evaluate")
    return row, files


def draw(rows, files):
    spec = {"kind": "smr_grid", "runs": rows, "seeds": [1, 2]}
    return draw_figure(FigureSpec.model_validate(spec), Files(metrics=files))


def test_points_are_means_over_seeds_with_the_number_that_chose_them(reranked) -> None:
    row, files = reranked
    _, points = draw([row], files)
    found = {(cell["gamma1"], cell["gamma2"]): cell for _, cell in points.iterrows()}
    assert set(found) == {(str(one), str(two)) for one, two in EXPONENTS}
    assert found["0.5", "2.0"]["val_mr"] == "11.00"  # 10 + 1.5 - 2 + 1.5
    assert {key: cell["chosen_by"] for key, cell in found.items() if cell["chosen_by"]} == {
        ("1.0", "0.0"): 1,
        ("0.5", "0.0"): 1,
    }


def test_cells_lie_where_their_exponents_are(reranked) -> None:
    row, files = reranked
    drawing, _ = draw([row], files)
    axes = drawing.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.5", "1"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "2"]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown[2, 0] == "14.5\n[1]" and shown[0, 1] == "9.5"
    assert axes.images[0].get_array()[0, 2] == 14.5
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    assert Image.open(buffer).size[0] > 500


def test_a_run_without_smr_is_refused(write_metrics) -> None:
    plain = run("lite.cmer", dataset="rsicd", title="RSICD")
    with pytest.raises(UserError, match="not reranked by SMR"):
        draw([plain], write_metrics(plain, {1: 20.0, 2: 21.0}))
