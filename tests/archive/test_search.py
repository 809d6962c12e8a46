"""Rankings against brute force, with filters, in memory-mapped vectors and with the ANN index; their outputs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_cases import Colours, square, squares, unit

from cmer.archive import ann
from cmer.archive.export import export
from cmer.archive.index import index
from cmer.archive.page import render
from cmer.archive.scenes import Footprint
from cmer.archive.search import Filters, Hit, Searcher, embed_query, parse_bbox
from cmer.archive.settings import Settings
from cmer.archive.store import Archive, schema, writing
from cmer.errors import UserError


def rows_of(vectors: np.ndarray, **columns) -> list[dict]:
    plain = {"box": [0, 0, 8, 8], "scene_size": [8, 8], "tiles": 1, "size": 1, "mtime_ns": 1}
    empty = {"label": "", "sha256": "", "west": None, "south": None, "east": None, "north": None}
    return [
        plain | empty | {"id": f"{n:020x}", "file": f"{n}.png", "vector": vector}
        | {name: values[n] for name, values in columns.items()}
        for n, vector in enumerate(vectors.tolist())
    ]  # fmt: skip


def archive_of(path: Path, vectors: np.ndarray, parts: int = 1, **columns) -> Archive:
    """An archive of vectors, appended in parts."""
    settings = Settings(folder=str(path), source="s", model="m", digest="d", dim=vectors.shape[1])
    archive = Archive.create(path, settings)
    rows = rows_of(vectors, **columns)
    for part in np.array_split(np.arange(len(rows)), parts):
        archive.add(pa.Table.from_pylist([rows[n] for n in part], schema=schema(settings.dim)))
    return archive


def files(hits: list[Hit]) -> list[str]:
    return [hit.file for hit in hits]


def near_ties(count: int = 2000, dim: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose scores differ by less than rounding to float16 changes them, and a query nearly at right angles."""
    rng = np.random.default_rng(0)
    centre, other = unit(rng.normal(size=(2, dim)))
    query = unit(other[None] - (other @ centre - 0.01) * centre)[0]
    return unit(centre + 1e-4 * rng.normal(size=(count, dim))), query


def test_the_ranking_is_that_of_brute_force_where_half_precision_would_not_do(store: Path) -> None:
    vectors, query = near_ties()
    searcher = Searcher(archive_of(store, vectors, parts=3))
    true = np.argsort(-(vectors @ query), kind="stable")
    rounded, half = (array.astype(np.float16).astype(np.float32) for array in (vectors, query))
    assert len(set(true[:10]) & set(np.argsort(-(rounded @ half))[:10])) < 8
    hits = searcher.search(query, 10)
    assert files(hits) == [f"{n}.png" for n in true[:10]]
    np.testing.assert_allclose([hit.score for hit in hits], (vectors @ query)[true[:10]], atol=1e-6)


def test_rows_that_were_removed_or_changed_are_found_as_they_are_now(store: Path) -> None:
    vectors, query = near_ties()
    archive = archive_of(store, vectors, parts=2)
    order = [f"{n}.png" for n in np.argsort(-(vectors @ query), kind="stable")]
    Searcher(archive)
    archive.table.checkout_latest()
    archive.remove(order[:2])
    archive.update({order[3]: {"label": "new"}})
    archive.compact()
    hits = Searcher(Archive.open(store)).search(query, 5)
    assert files(hits) == order[2:7] and hits[1].label == "new"
    assert len(list(store.glob("vectors.*.npy"))) == len(list(store.glob("rows.*.npy"))) == 1


def test_while_another_process_writes_the_last_complete_version_is_searched(store: Path) -> None:
    vectors, query = near_ties(20)
    archive = archive_of(store, vectors)
    with writing(store), pytest.raises(UserError, match="another `cmer index`"):
        Searcher(Archive.open(store))
    Searcher(archive)
    archive.table.checkout_latest()
    with writing(store):
        archive.remove(["0.png"])
        assert sorted(files(Searcher(Archive.open(store)).search(query, 50))) == sorted(f"{n}.png" for n in range(20))
    assert len(Searcher(Archive.open(store)).search(query, 50)) == 19


def test_labels_filter_and_are_only_text(store: Path) -> None:
    vectors, query = near_ties(30)
    labels = ["it's", "b' OR 'a'='a", "河"] * 10
    searcher = Searcher(archive_of(store, vectors, label=labels))
    order = np.argsort(-(vectors @ query), kind="stable")
    for wanted in (["it's"], ["b' OR 'a'='a"], ["河", "it's"], ["' OR 1=1 --"]):
        hits = searcher.search(query, 4, Filters(tuple(wanted)))
        assert files(hits) == [f"{n}.png" for n in order if labels[n] in wanted][:4]


PLACES = {
    "paris": (2.0, 48.0, 3.0, 49.0), "fiji": (179.0, -18.0, -179.0, -17.0), "quito": (-79.0, -1.0, -78.0, 0.0),
    "nowhere": (None, None, None, None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("bbox", "found"),
    [
        ("-180,-90,180,90", {"paris", "fiji", "quito"}),
        ("3,49,4,50", {"paris"}),
        ("3.1,48,4,49", set()),
        ("0,49.1,9,60", set()),
        ("179.5,-20,180,-10", {"fiji"}),
        ("-179.5,-20,-170,-10", {"fiji"}),
        ("170,-20,-170,-10", {"fiji"}),
        ("170,-20,-78.5,1", {"fiji", "quito"}),
        ("-178,-20,178,0", {"quito"}),
        ("170,-90,-170,-20", set()),
    ],
)
def test_places_filter_across_the_antimeridian_too(tmp_path: Path, bbox: str, found: set[str]) -> None:
    columns = {name: [place[n] for place in PLACES.values()] for n, name in enumerate(Footprint._fields)}
    archive = archive_of(tmp_path / "a", unit(np.eye(4) + 1), label=list(PLACES), **columns)
    hits = Searcher(archive).search(unit([[1, 1, 1, 1]])[0], 10, Filters(bbox=parse_bbox(bbox)))
    assert {hit.label for hit in hits} == found
    assert all(hit.footprint == PLACES[hit.label] for hit in hits)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "0,50,1,40", "0,0,181,1", "nan,0,1,1"])
def test_a_place_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="west,south,east,north"):
        parse_bbox(text)


def test_a_query_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    model = Colours()
    square(tmp_path / "a.png", (0, 0, 255))
    text, image = model.encode_texts(["red"])[0], model.encode_images([tmp_path / "a.png"])[0]
    both = (text + image) / np.linalg.norm(text + image)
    np.testing.assert_allclose(embed_query(model, "red", tmp_path / "a.png"), both, atol=1e-6)
    np.testing.assert_allclose(embed_query(model, "", tmp_path / "a.png"), image, atol=1e-6)
    np.testing.assert_allclose(embed_query(model, "red", None, image), both, atol=1e-6)
    with pytest.raises(UserError, match="the query is empty"):
        embed_query(model, "  ")
    with pytest.raises(UserError, match="opposites"):
        embed_query(model, "red", None, -text)


def test_an_archive_without_images_says_so(store: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        Searcher(archive_of(store, np.empty((0, 4), np.float32)))


def test_an_index_is_built_above_the_limit_and_its_recall_is_that_of_its_answers(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "QUERIES", 10)
    folder, model = squares(tmp_path / "images", 100), Colours()
    assert index(folder, store, model, "colours", exact_up_to=300).recall is None
    assert not Searcher(Archive.open(store)).approximate
    recall = index(folder, store, model, "colours", exact_up_to=256).recall
    assert recall is not None and min(recall.texts, recall.images) >= 0.9 and "recall@10" in str(recall)
    approximate, exact = Searcher(Archive.open(store)), Searcher(Archive.open(store), exact=True)
    assert approximate.approximate and not exact.approximate
    query = model.encode_texts(["blue"])[0]
    for filters in (Filters(), Filters(("red",))):
        near, true = approximate.search(query, 10, filters), exact.search(query, 10, filters)
        assert len({hit.id for hit in near} & {hit.id for hit in true}) >= 9
        assert near[0].score == pytest.approx(true[0].score, abs=1e-5)


def test_an_image_is_found_by_its_id_and_nothing_else(indexed: Path) -> None:
    searcher = Searcher(Archive.open(indexed))
    hit = searcher.search(Colours().encode_texts(["green"])[0], 1)[0]
    found = searcher.find(hit.id)
    assert found is not None and found[0].file == hit.file == "green/0.png"
    np.testing.assert_allclose(found[1], Colours().encode_images([indexed.parent / "images/green/0.png"])[0], atol=1e-6)
    for other in ("", "x", hit.id[:-1], f"{hit.id}' OR '1'='1"):
        assert searcher.find(other) is None


def test_the_page_contains_its_pictures_and_escapes_every_name(tmp_path: Path, store: Path) -> None:
    folder = tmp_path / "images"
    for n, name in enumerate(("<script>alert(1)<", "a & b")):
        square(folder / name / "x.png", (250, 0, 0), seed=n)
    index(folder, store, Colours(), "colours")
    archive = Archive.open(store)
    hits = Searcher(archive).search(Colours().encode_texts(["red"])[0], 5)
    (folder / hits[1].file).write_bytes(b"something else")
    page = render(archive.settings, 'red "<b>"', hits)
    assert page.count("data:image/webp;base64,") == 1 and "has changed since it was indexed" in page
    assert "<script" not in page and "<b>" not in page and "a &amp; b" in page
    assert "http" not in page and "src=" not in page.replace('src="data:', "")


def test_the_export_has_every_row_and_the_settings(indexed: Path, tmp_path: Path) -> None:
    archive = Archive.open(indexed)
    assert export(archive, tmp_path / "rows.parquet") == 12
    table = pq.read_table(tmp_path / "rows.parquet")
    assert Settings.model_validate_json(table.schema.metadata[b"cmer.archive"]) == archive.settings
    assert table.drop_columns("vector").to_pylist() == (
        archive.read([name for name in table.schema.names if name != "vector"]).read_all().to_pylist()
    )
    images = [indexed.parent / "images" / file for file in table["file"].to_pylist()]
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), Colours().encode_images(images), atol=1e-6)
