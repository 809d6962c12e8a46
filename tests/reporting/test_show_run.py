"""A run on the terminal."""

from pathlib import Path

import pandas as pd
import pytest

from cmer.errors import UserError
from cmer.io import read_json, read_sealed, write_sealed
from cmer.reporting.show_run import show_run

PLACE = "squares/lite.probe"


def test_a_run_tells_its_recalls_curve_and_queries(results: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    show_run(Path(f"results/metrics/{PLACE}"))
    out = capsys.readouterr().out
    mrs = [read_json(results / f"metrics/{PLACE}/seed{seed}.json")["protocols"]["none"]["mr"] for seed in (1, 2)]
    assert f"{sum(mrs) / 2:.2f} ± {abs(mrs[0] - mrs[1]) / 2**0.5:.2f}" in out
    assert "lite.probe on squares" in out and "seed1: validation mR 30.5 ▁ 30.5, best 30.5" in out
    assert "Best queries, label protocol none, seed1" in out and "seen from above" in out
    best, worst = out[out.index("Best queries") :].split("Worst queries")
    assert int(worst.splitlines()[3].split()[0]) > 1
    query = read_sealed(results / f"metrics/{PLACE}/seed1.queries.json", "cmer evaluate")["worst"][0]
    assert worst.splitlines()[3].split()[-2:] == ["3", f"{query['bleu']:.2f}"], "images of the scene, and BLEU"
    assert "scene size" in best and "BLEU" not in best
    assert "ranked first" in worst and "ranked first" not in best  # where it would repeat the queries' own images


def test_images_have_their_scene_where_the_file_does_not_say_it_and_no_line_starts_with_a_dot(
    results: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    images, run = results / "data/squares/images.csv", Path(f"results/metrics/{PLACE}")
    file = run / "seed1.queries.json"
    found = read_sealed(file, "cmer evaluate")
    for query in found["worst"]:
        query["caption"] = "a square , seen from above ."
    write_sealed(file, found, "cmer evaluate")
    rows = pd.read_csv(images, dtype=str)
    rows["file"] = rows["label"] + "_" + rows["image_id"] + ".jpg"
    rows.to_csv(images, index=False)
    show_run(run)
    out = capsys.readouterr().out
    assert "a square, seen from above. " in out and "(" not in out
    rows["file"] = "0" + rows["image_id"] + ".jpg"
    rows.to_csv(images, index=False)
    show_run(run)
    target = rows.iloc[found["worst"][0]["image_id"]]
    assert f"{target['file']} ({target['label']})" in capsys.readouterr().out


def test_what_is_no_run_or_is_damaged_is_named(results: Path) -> None:
    with pytest.raises(UserError, match=r"results/metrics/squares has no metrics of a run"):
        show_run(Path("results/metrics/squares"))
    (results / f"curves/{PLACE}/seed1.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"curves/squares/lite.probe/seed1\.jsonl is damaged; run `cmer train` again"):
        show_run(Path(f"results/metrics/{PLACE}"))
