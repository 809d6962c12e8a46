"""The report's page of a small experiment, and its parts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_project import spec_of

from cmer.data.frames import IMAGES, RANKS, read_frame
from cmer.errors import UserError
from cmer.io import read_sealed, write_sealed
from cmer.reporting.report.curve import curve_points, draw_curve
from cmer.reporting.report.page import render
from cmer.reporting.report.spec import Shown


class Page(HTMLParser):
    """What a page refers to and contains."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.unnamed: list[str] = []
        self.pictures: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        attributes = dict(found)
        kept = {"href": self.links, "src": self.sources, "id": self.ids, "data-picture": self.pictures}
        for name, values in kept.items():
            if name in attributes:
                values.append(attributes[name] or "")
        self.unnamed += [tag] * (tag == "img" and not attributes.get("alt"))


def test_the_page_contains_all_that_it_refers_to(prepared, results: Path) -> None:
    html = render(spec_of(prepared), results, results.parent / "logs")
    page = Page(html)
    assert len(page.ids) == len(set(page.ids)) and "run-squares-lite.probe" in page.ids
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith(("#", "data:")) for link in page.links + page.sources)
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    assert not page.unnamed
    pictures = json.loads(re.search(r'id="pictures">(.*?)</script>', html, re.S)[1])
    assert page.pictures and set(page.pictures) <= set(pictures)
    assert all(url.startswith("data:image/webp;base64,") for url in pictures.values())


def test_the_page_of_a_run_tells_its_settings_recalls_and_record(prepared, results: Path) -> None:
    html = render(spec_of(prepared), results, results.parent / "logs").replace("<wbr>", "")
    mr = (results / "table1.csv").read_text()
    measured = next(line.split(",") for line in mr.splitlines() if line.startswith("measured") and ",none," in line)
    header = mr.splitlines()[0].split(",")
    assert measured[header.index("mr")] in html
    for words in ("training.lr", "0.003", "options.soft_multi_positive", "1,234 trained parameters", "forest",
                  "seen from above", "Worst queries", "How the metrics of seed 2 were made", "commit"):  # fmt: skip
        assert words in html, words
    assert "training.epochs" not in html  # it has its default
    assert '<th scope="row">Evaluation</th>' in html


def test_the_page_has_the_first_values_of_a_figure(prepared, results: Path) -> None:
    (results / "figures").mkdir()
    pd.DataFrame({"run": [f"run {i}" for i in range(1234)], "mr": "1.00"}).to_csv(
        results / "figures/recall_curves.csv", index=False
    )
    (results / "figures/recall_curves.svg").write_text("<svg></svg>")
    figures = [Shown(name="recall_curves", kind="recall_curves")]
    html = render(spec_of(prepared).model_copy(update={"figures": figures}), results, results.parent / "logs")
    card = html[html.index('id="figure-recall_curves"') :]
    card = card[: card.index("</figure>")].replace("<wbr>", "")
    assert "1,034 more values are in <code>results/figures/recall_curves.csv</code>" in card
    assert "run 199<" in card and "run 200<" not in card


def page_with(caption: str, prepared, results: Path) -> str:
    """The page if the best query of a run were this caption."""
    file = results / "metrics/squares/lite.probe/seed1.queries.json"
    found = read_sealed(file, "cmer evaluate")
    found["best"][0]["caption"] = caption
    write_sealed(file, found, "cmer evaluate")
    return render(spec_of(prepared), results, results.parent / "logs")


def test_queries_say_how_many_images_they_rank_and_start_no_line_with_a_dot(prepared, results: Path) -> None:
    html = page_with("a square , with trees .", prepared, results)
    assert "a square, with trees.</p>" in html and "rank 1 of 9, 3 " in html
    worst = html[html.index("Worst queries") :]
    assert re.search(r"rank \d of 9, 3 (pond|forest|desert) images, BLEU 0\.\d\d", worst), "why a query may be hard"


def resampled(ranks: pd.DataFrame) -> list[float]:
    """95 % interval of mR, percent: images are drawn with all of their queries."""
    ways = [[rows["greater"].to_numpy() for _, rows in of.groupby("image")] for _, of in ranks.groupby("direction")]
    draws = np.random.default_rng(0).multinomial(len(ways[0]), [1 / len(ways[0])] * len(ways[0]), 1000)
    drawn = [
        [np.concatenate([np.repeat(*one) for one in zip(way, draw, strict=True)]) for way in ways] for draw in draws
    ]
    means = [100 * np.mean([(found < k).mean() for found in both for k in (1, 5, 10)]) for both in drawn]
    return np.percentile(means, [2.5, 97.5]).tolist()


def test_scenes_have_the_recall_and_interval_of_their_images_and_captions(prepared, results: Path) -> None:
    html = render(spec_of(prepared), results, results.parent / "logs")
    images = read_frame(results / "data/squares/images.csv", IMAGES)
    ranks = [read_frame(results / f"metrics/squares/lite.probe/seed{seed}.ranks.csv", RANKS) for seed in (1, 2)]
    for label in ("forest", "desert", "pond"):
        ids = images.loc[(images["label"] == label) & (images["split"] == "test"), "image_id"]
        of_label = [table[(table["protocol"] == "none") & table["image"].isin(ids)] for table in ranks]
        shares = [  # no scores are tied
            (table.loc[table["direction"] == direction, "greater"] < k).mean()
            for table in of_label
            for direction in ("i2t", "t2i")
            for k in (1, 5, 10)
        ]
        row = (
            rf'{label}</th><td class="number">3</td>\s*<td class="number">([\d.]+) <small>([\d.]+) to ([\d.]+)</small>'
        )
        shown = [float(value) for value in re.search(row, html).groups()]
        assert shown[0] == pytest.approx(100 * np.mean(shares), abs=0.051), label
        assert shown[1:] == pytest.approx(np.mean([resampled(table) for table in of_label], axis=0), abs=0.051), label


def test_a_curve_is_the_mean_of_the_seeds_between_the_lowest_and_highest(prepared, results: Path) -> None:
    one = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "val_mr": 30.0}]
    two = [{"epoch": 1, "loss": 4.0}, {"epoch": 2, "loss": 1.5, "val_mr": 33.0}, {"epoch": 3, "loss": 1.0}]
    points = curve_points([one, two, one])
    assert points.to_numpy().tolist() == [
        ["loss", 1, pytest.approx(8 / 3), 2.0, 4.0],
        ["loss", 2, pytest.approx(3.5 / 3), 1.0, 1.5],
        ["val_mr", 2, 31.0, 30.0, 33.0],
    ]  # not all have a third epoch
    assert curve_points([one])[["mean", "low", "high"]].nunique(axis=1).tolist() == [1, 1, 1]
    html = render(spec_of(prepared), results, results.parent / "logs")
    assert "mean of the seeds, in the band from the lowest to the highest seed" in html
    assert draw_curve([[], []]) == "" and draw_curve([one]) != draw_curve([one, one])


def test_the_same_results_give_the_same_page_and_changed_metrics_another(prepared, results: Path) -> None:
    def page() -> str:
        return render(spec_of(prepared), results, results.parent / "logs")

    first = page()
    assert page() == first
    table = results / "table1.csv"
    row = next(line for line in table.read_text().splitlines() if line.startswith("measured"))
    value = row.split(",")[table.read_text().splitlines()[0].split(",").index("mr")]
    table.write_text(table.read_text().replace(f",{value},", ",12.34,"))
    assert ">12.34 " in page() and ">12.34 " not in first


def test_a_figure_wider_than_a_column_takes_the_width_of_the_page(prepared, results: Path) -> None:
    folder = results / "figures"
    folder.mkdir()
    (folder / "recalls.csv").write_text("run,mr\nlite.probe,12\n")
    spec = spec_of(prepared).model_copy(update={"figures": [Shown(name="recalls", kind="recall_curves")]})
    for points, names in ((252, "card"), (504, "card wide")):
        (folder / "recalls.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{points}pt"/>')
        html = render(spec, results, results.parent / "logs")
        assert f'<figure class="{names}" id="figure-recalls" style="--inches: {points / 72:.2f}">' in html


def test_captions_are_escaped(prepared, results: Path) -> None:
    html = page_with("<script>alert(1)</script>", prepared, results)
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html


def test_queries_of_another_evaluation_or_of_no_test_image_are_refused(prepared, results: Path) -> None:
    file = results / "metrics/squares/lite.probe/seed1.queries.json"
    found = read_sealed(file, "cmer evaluate")
    train = int(read_frame(results / "data/squares/images.csv", IMAGES).query("split == 'train'")["image_id"].iloc[0])
    for changed, message in (
        ({"ranks": "0" * 64}, "was not written with the metrics beside it; run `cmer evaluate` again"),
        ({"best": [found["best"][0] | {"image_id": train}]}, f"squares has no test image {train}"),
    ):
        write_sealed(file, found | changed, "cmer evaluate")
        with pytest.raises(UserError, match=message):
            render(spec_of(prepared), results, results.parent / "logs")


@pytest.mark.parametrize("name", ["table1.csv", "curves/squares/lite.probe/seed1.jsonl",
                                  "metrics/squares/lite.probe/seed2.json", "data/squares/images.csv",
                                  "metrics/squares/lite.probe/seed1.queries.json"])  # fmt: skip
def test_a_damaged_file_is_named(prepared, results: Path, name: str) -> None:
    (results / name).write_text('"')
    with pytest.raises(UserError, match=re.escape(name)):
        render(spec_of(prepared), results, results.parent / "logs")
