"""The report's page of a small experiment, and its parts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_project import spec_of

from cmer.data.frames import IMAGES, RANKS, read_frame
from cmer.errors import UserError
from cmer.reporting.queries import NEAR, SHOWN, TOP, Query, select, tags
from cmer.reporting.report.page import render


@given(st.integers(2, 14), st.integers(1, 3), st.integers(0, 99))
def test_groups_of_queries_are_those_of_a_naive_ranking(n_images: int, per_image: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(n_images, n_images * per_image)).astype(np.float32)
    owner = np.repeat(np.arange(n_images), per_image)
    rank = [1 + sum(scores[:, c] > scores[owner[c], c]) for c in range(len(owner))]
    found = select(scores, owner)
    for group, low, high in ((found.best, 1, 1), (found.near, 2, NEAR), (found.worst, NEAR + 1, n_images)):
        eligible = {int(owner[c]) for c in range(len(owner)) if low <= rank[c] <= high}
        assert len(group) == min(SHOWN, len(eligible)) == len({query.image for query in group})
        for query in group:
            assert query.rank == rank[query.caption] and low <= query.rank <= high
            assert query.image == owner[query.caption]
            assert query.top == sorted(range(n_images), key=lambda i: -scores[i, query.caption])[:TOP]
    worst = [query.rank for query in found.worst]
    assert worst == sorted(worst, reverse=True) and (not worst or worst[0] == max(rank))


def test_queries_of_rank_one_are_ordered_by_their_margin() -> None:
    scores = np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.1, 0.2, 0.9]], np.float32)  # margins 0.1, 0.5 and 0.6
    assert [query.caption for query in select(scores, np.arange(3)).best] == [2, 1, 0]


def test_tags_say_what_may_explain_a_rank() -> None:
    texts, owner = ["Two ponds", "a field", "a field", "someone"], np.array([0, 1, 2, 3])
    labels = ["pond", "farm", "farm", ""]
    assert tags(Query(0, 0, 1.0, [0, 1]), texts, owner, labels) == ["count word"]
    assert tags(Query(1, 1, 2.0, [2, 1]), texts, owner, labels) == ["duplicate caption", "same category first"]
    assert tags(Query(3, 3, 2.0, [3, 1]), texts, owner, labels) == []


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
    html = render(spec_of(prepared), results, results.parent / "logs")
    mr = (results / "table1.csv").read_text()
    measured = next(line.split(",") for line in mr.splitlines() if line.startswith("measured") and ",none," in line)
    header = mr.splitlines()[0].split(",")
    assert measured[header.index("mr")] in html
    for words in ("training.lr", "0.003", "options.soft_multi_positive", "1,234 trained parameters", "forest",
                  "seen from above", "Worst queries", "How the metrics of seed 2 were made", "commit"):  # fmt: skip
        assert words in html, words
    assert "training.epochs" not in html  # it has its default
    assert '<th scope="row">Evaluation</th>' in html


def test_scenes_have_the_recall_of_their_images_and_captions(prepared, results: Path) -> None:
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
        row = rf'<th scope="row">{label}</th><td class="number">3</td>\s*<td>.*?</span>([\d.]+)</td>'
        assert float(re.search(row, html, re.S)[1]) == pytest.approx(100 * np.mean(shares), abs=0.051), label


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


def test_captions_are_escaped(prepared, results: Path) -> None:
    queries = results / "captions/squares.queries.csv"
    text = re.sub("seen from above", "<script>alert(1)</script>", queries.read_text())
    queries.write_text(text)
    html = render(spec_of(prepared), results, results.parent / "logs")
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html


@pytest.mark.parametrize("name", ["table1.csv", "checkpoints/squares/lite.probe/seed1.curve.jsonl",
                                  "metrics/squares/lite.probe/seed2.json", "data/squares/images.csv"])  # fmt: skip
def test_a_damaged_file_is_named(prepared, results: Path, name: str) -> None:
    (results / name).write_text('"')
    with pytest.raises(UserError, match=re.escape(name)):
        render(spec_of(prepared), results, results.parent / "logs")
