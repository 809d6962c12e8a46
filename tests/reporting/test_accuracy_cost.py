import io
import json

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from reporting_cases import OFF, of, require_readable, run
from typer.testing import CliRunner

from cmer.cli.evaluate import app
from cmer.errors import UserError
from cmer.reporting.base import FigureSpec, Files
from cmer.reporting.drawings.accuracy_cost import draw
from cmer.reporting.figures.accuracy_cost import as_table, read_points

METHODS = (
    *("linear_probe", "cmer", "clip_adapter", "clip_lora", "clip_bitfit", "cross_modal_adapter", "pe_rsitr"),
    *("single_language", "cmer_v1"),
)


@pytest.fixture
def nine(write_metrics, write_profile):
    """Nine runs on a backbone with their metrics and profile: closer together than their labels are high."""

    def write(backbone="b", printed="ViT-B-16", scale=1.0, **step):
        runs, metrics, steps = [], [], []
        for index, name in enumerate(METHODS):
            method, options = ("cmer", OFF) if name == "cmer_v1" else (name, None)
            row = run(f"{backbone}.{name}", method, options, backbone=printed)
            runs.append(row)
            metrics += write_metrics(row, {1: 30 + index / 10})
            cost = {"saved_mb": scale * 2**index, "pairs_per_second": 100 / scale / 2**index} | step
            steps += [{"run": row["name"], "method": method, "batch": batch} | cost for batch in (2, 4)]
        return runs, metrics, [write_profile(backbone, steps)]

    return write


def points_of(runs, metrics, profiles, seeds=(1,)):
    spec = FigureSpec.model_validate({"kind": "accuracy_cost", "runs": runs, "seeds": list(seeds)})
    return read_points(spec, Files(metrics, profiles))


def test_points_are_the_inputs(write_metrics, write_profile):
    row = run("b.cmer", options=OFF)
    steps = [
        {"setting": "paper_like", "saved_mb": 70, "batch": 8, "pairs_per_second": 5.0},
        {"setting": "today", "saved_mb": 20, "batch": 2, "pairs_per_second": 30.0},
        {"setting": "today", "saved_mb": 20, "batch": 4, "pairs_per_second": 40.0},
    ]
    file = write_profile("b", [step | {"run": "b.cmer", "method": "cmer"} for step in steps])
    point = of(as_table(points_of([row], write_metrics(row, {1: 30.0, 2: 32.0}), [file], seeds=[1, 2])))
    assert (point["method"], point["label_protocol"], point["setting"], point["batch"]) == (
        "CMER v1", "none", "today", "4",
    )  # fmt: skip
    assert (point["mr"], point["mr_ci_low"], point["mr_ci_high"]) == ("31.00", "29.50", "32.40")
    assert (point["saved_mb_per_pair"], point["seconds_per_1000_pairs"]) == ("20", "25")


def test_runs_of_one_name_are_told_apart(write_metrics, write_profile):
    rows = [run("a", "clip_lora"), run("b", "clip_lora", {"lora_rank": 4}), run("c", "clip_lora", backbone="ViT-L-14")]
    metrics = [file for row in rows for file in write_metrics(row, {1: 30.0})]
    file = write_profile("b", [{"run": row["name"], "method": "clip_lora"} for row in rows])
    assert [point.label for point in points_of(rows, metrics, [file])] == [
        "CLIP-lora (a)",
        "CLIP-lora (b)",
        "CLIP-lora",
    ]


def test_what_is_missing_is_named(write_metrics, write_profile):
    row = run("b.cmer")
    metrics = write_metrics(row, {1: 30.0})
    step = {"run": "b.cmer", "method": "cmer"}
    with pytest.raises(UserError, match="'today'"):
        points_of([row], metrics, [write_profile("b", [step | {"setting": "paper_like"}])])
    with pytest.raises(UserError, match=r"measures b\.cmer"):
        points_of([row], metrics, [])
    with pytest.raises(UserError, match=r"rsitmd/b\.cmer/seed1"):
        points_of([row], [], [write_profile("b", [step])])


def test_every_text_of_the_figure_is_inside_and_apart_from_the_others(nine, texts_of):
    one, other, counted = nine(), nine("l", "ViT-L-14", scale=4.0), nine("h", "ViT-H-14", pairs_per_second=None)
    for name, parts in (("one backbone", [one]), ("three", [one, other, counted]), ("not timed", [counted])):
        points = [point for part in parts for point in points_of(*part)]
        figure = draw(points)
        texts = texts_of(figure)
        labels = [text for text, _ in texts]
        assert all(labels.count(point.label) >= len(parts) for point in points), name
        require_readable(figure, texts)


def test_every_run_has_a_row_in_the_order_of_accuracy(nine, texts_of):
    points = points_of(*nine()) + points_of(*nine("l", "ViT-L-14", pairs_per_second=None))
    texts = texts_of(draw(points))
    labels = {point.label for point in points}
    downwards = [text for text, box in sorted(texts, key=lambda found: -found[1].y0) if text in labels]
    assert downwards == [point.label for point in sorted(points, key=lambda p: p.accuracy.mr)][::-1]


def test_long_labels_have_two_columns_and_leave_the_panels_room(write_metrics, write_profile):
    rows = [run(f"b.lora_with_a_long_name_{rank}", "clip_lora", {"lora_rank": rank}) for rank in (4, 8)]
    metrics = [file for row in rows for file in write_metrics(row, {1: 30.0})]
    file = write_profile("b", [{"run": row["name"], "method": "clip_lora"} for row in rows])
    figure = draw(points_of(rows, metrics, [file]))
    FigureCanvasAgg(figure).draw()
    assert figure.get_figwidth() == 7
    assert all(axes.bbox.width > 0.1 * figure.bbox.width for axes in figure.axes)


def test_the_title_says_what_a_step_does_with_the_frozen_towers(nine, texts_of):
    online, stored = points_of(*nine()), points_of(*nine("s", "ViT-B-32", stored=True))
    for points, words in (
        (online, "frozen towers included,"),
        (stored, "from stored features,"),
        (online + stored, "frozen towers included or from stored features,"),
    ):
        title = " ".join(text for text, _ in texts_of(draw(points))).replace("\n", " ")
        assert f"pairs in float32, {words}" in title
    assert set(as_table(online + stored)["engine"]) == {"online", "stored"}


def test_the_title_says_what_was_measured_where(nine, texts_of):
    title = " ".join(text for text, _ in texts_of(draw(points_of(*nine()))))
    for words in (
        "RSITMD: 8,734 training images, 20 epochs, one seed",
        "4 pairs in float32",
        "cpu: Toy CPU",
        "ViT-B-16",
    ):
        assert words in title


def test_verb_writes_the_same_picture_and_points_twice(nine, tmp_path):
    runs, metrics, profiles = nine()
    files = [f"--metrics={file}" for file in metrics] + [f"--efficiency={file}" for file in profiles]
    spec = json.dumps({"kind": "accuracy_cost", "runs": runs, "seeds": [1]})
    written = []
    for name in ("first", "second"):
        out, points = tmp_path / f"{name}.png", tmp_path / f"{name}.csv"
        outputs = ["--out", str(out), "--vector", str(out.with_suffix(".svg")), "--points", str(points)]
        arguments = ["figure", "--spec", spec, *files, *outputs]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        written.append((out.read_bytes(), points.read_bytes()))
    assert written[0] == written[1]
    picture = Image.open(io.BytesIO(written[0][0]))
    assert picture.format == "PNG"
    assert picture.width == 1050  # 3.5 inches at 300 dots
    assert len(picture.convert("RGB").getcolors(1_000_000)) > 100  # not blank
    assert pd.read_csv(io.BytesIO(written[0][1]))["run"].tolist() == [row["name"] for row in runs]
