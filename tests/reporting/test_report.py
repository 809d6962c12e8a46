"""The report's page of a small experiment, and its parts."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from artifacts import write_embeddings
from hypothesis import given
from hypothesis import strategies as st

from cmer.data.frames import write_frame
from cmer.errors import UserError
from cmer.io import sha256, write_sealed
from cmer.provenance import recorded
from cmer.reporting.base import Files, TableSpec, build_table
from cmer.reporting.report.page import render
from cmer.reporting.report.queries import SHOWN, TOP, best_and_worst
from cmer.reporting.report.spec import ReportSpec
from cmer.retrieval.evaluate import evaluate

RUN = {
    "name": "lite.probe", "dataset": "squares", "dataset_title": "squares", "backbone_printed": "lite",
    "method": "linear_probe", "options": {"soft_multi_positive": True},
}  # fmt: skip


@given(st.integers(2, 14), st.integers(1, 3), st.integers(0, 99))
def test_best_and_worst_queries_are_those_of_a_naive_ranking(n_images: int, per_image: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(n_images, n_images * per_image)).astype(np.float32)
    owner = np.repeat(np.arange(n_images), per_image)
    rank = [1 + sum(scores[:, c] > scores[owner[c], c]) for c in range(len(owner))]
    best, worst = best_and_worst(scores, owner)
    for side, chosen in ((best, min), (worst, max)):
        assert len(side) == min(SHOWN, n_images) == len({query.image for query in side})
        assert side[0].rank == chosen(rank)
        for query in side:
            assert query.rank == rank[query.caption] and query.image == owner[query.caption]
            assert query.top == sorted(range(n_images), key=lambda i: -scores[i, query.caption])[:TOP]
    assert [query.rank for query in best] == sorted(query.rank for query in best)
    assert [query.rank for query in worst] == sorted((query.rank for query in worst), reverse=True)


@pytest.fixture
def results(prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Results of one run with two seeds on the squares, as the workflow lays them out."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "results"
    for source, target in ((prepared.folder / "images.csv", "data/squares"), (prepared.queries, "captions")):
        (root / target).mkdir(parents=True)
        name = "squares.queries.csv" if target == "captions" else "images.csv"
        (root / target / name).write_bytes(source.read_bytes())
    files = []
    for seed in (1, 2):
        place = f"squares/lite.probe/seed{seed}"
        embeddings, metrics = root / f"embeddings/{place}.safetensors", root / f"metrics/{place}.json"
        with recorded(Path(f"logs/evaluate/{seed}.record.json")):
            _evaluate(prepared, embeddings, metrics, seed)
        files.append(metrics)
        curve = root / f"checkpoints/{place}.curve.jsonl"
        curve.parent.mkdir(parents=True, exist_ok=True)
        curve.write_text('{"epoch": 1, "loss": {"batch": 2.0}}\n{"epoch": 2, "loss": {"batch": 1.0}, "val_mr": 30.5}\n')
    table = TableSpec.model_validate(
        {"kind": "table1", "runs": [RUN], "protocols": ["none", "oracle"], "seeds": [1, 2]}
    )
    write_frame(root / "table1.csv", build_table(table, Files(metrics=files)))
    yield root


def _evaluate(prepared, embeddings: Path, metrics: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    images, texts = draw.normal(size=(9, 8)), draw.normal(size=(45, 8))
    tensors = {"images": (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)}
    for protocol in ("none", "oracle"):
        tensors |= {
            f"texts/{protocol}": (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32),
            f"index/{protocol}": np.arange(45),
        }
    spec = {"run": RUN["name"], "dataset": "squares", "seed": seed, "method": RUN["method"], "options": RUN["options"]}
    counts = {"trainable_parameters": 1234, "train_images": 20, "epochs": 2, "images_seen": 40}
    embeddings.parent.mkdir(parents=True, exist_ok=True)
    beside = [(prepared.folder / "images.csv", "images.csv"), (prepared.queries, "queries.csv")]
    for source, name in beside:
        (embeddings.parent / name).write_bytes(source.read_bytes())
    write_embeddings(embeddings, tensors, {"spec": spec} | counts)
    found, ranks = evaluate(embeddings, prepared.folder, prepared.queries)
    file = metrics.with_suffix(".ranks.csv")
    write_frame(file, ranks)
    write_sealed(metrics, found | {"ranks": sha256(file)}, "cmer evaluate")


def spec_of(prepared) -> ReportSpec:
    training = {"lr": 0.003, "inputs": "stored"}
    return ReportSpec.model_validate({
        "folder": "results", "tables": [{"name": "table1", "kind": "table1"}], "figures": [], "seeds": [1, 2],
        "runs": [RUN | {"training": training}], "datasets": {"squares": prepared.options.model_dump()},
    })  # fmt: skip


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
