"""The metrics of a test split in numbers that can be counted by hand, ties among them."""

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table, write_embeddings
from safetensors.numpy import save_file

from cmer.data.frames import QUERIES, write_frame
from cmer.retrieval.bootstrap import ImageHits, mr_interval
from cmer.retrieval.evaluate import evaluate
from cmer.retrieval.recall import ranks
from cmer.retrieval.scores import similarity

OWNER = [0, 0, 1, 1, 2, 2, 3, 3]
TEXTS = ["a pond", "a pond", "a port", "a boat", "a boat", "trees", "grass", "grass and trees"]
SCORES = np.array(
    [
        [9, 0, 5, 0, 0, 0, 0, 0],  # captions 0: alone in front, both ways
        [0, 0, 5, 5, 3, 3, 0, 0],  # captions 2 and 3 in front; caption 2 is tied with image 0
        [0, 0, 0, 7, 4, 4, 4, 4],  # one caption in front of four, of which two are right
        [0, 0, 0, 0, 4, 0, 1, 1],  # one caption in front; caption 4 is tied with image 2
    ],
    dtype=np.float32,
)


def write(folder, scores, owner, texts):
    """These scores on a test split that follows two train images."""
    count = len(scores)
    images = images_table(2 + count, split=["train"] * 2 + ["test"] * count, label="x")
    captions = range(20, 20 + len(owner))
    write_frame(folder / "images.csv", images)
    queries = pd.DataFrame(
        {"caption_id": captions, "image_id": np.array(owner) + 2, **dict.fromkeys(QUERIES.columns[2:], texts)}
    )
    write_frame(folder / "queries.csv", queries)
    tensors = {"scores/none": scores, "index/none": np.unique(texts, return_inverse=True)[1]}
    write_embeddings(folder / "e.safetensors", tensors, {"spec": {}})
    return folder


@pytest.fixture
def split(tmp_path):
    return write(tmp_path, SCORES, OWNER, TEXTS)


@pytest.fixture
def metrics(split):
    """The metrics of the protocol, and the table of ranks."""
    found, table, _ = evaluate(split / "e.safetensors", split, split / "queries.csv")
    return found["protocols"]["none"], table


def test_recalls_at_one_are_expected_over_ties(metrics) -> None:
    """Image 2's and image 3's captions are behind; captions 1, 2, 4 and 5 to 7 share or miss the first place."""
    found, _ = metrics
    assert found["i2t_r1"] == 50
    # captions 0 and 6, 7 hit; 1 is tied among four images, 2 between two; 3 misses; 4 is tied; 5 hits
    hits = [1, 1 / 4, 1 / 2, 0, 1 / 2, 1, 0, 0]
    assert found["t2i_r1"] == pytest.approx(100 * np.mean(hits), abs=1e-4)


def test_ties_broken_for_and_against_bound_the_mr(metrics) -> None:
    found, _ = metrics
    i2t = {1: (2, 2), 5: (4, 4), 10: (4, 4)}  # hits of four images with ties in favour and against
    t2i = {1: (5, 2), 5: (8, 8), 10: (8, 8)}
    for name, side in (("mr_optimistic", 0), ("mr_pessimistic", 1)):
        recalls = [100 * i2t[k][side] / 4 for k in i2t] + [100 * t2i[k][side] / 8 for k in t2i]
        assert found[name] == pytest.approx(np.mean(recalls), abs=1e-4)
    assert found["mr_pessimistic"] < found["mr"] < found["mr_optimistic"]


def test_ties_shared_captions_and_texts_are_counted(metrics) -> None:
    found, _ = metrics
    assert found["tied_queries"] == {"i2t": 1, "t2i": 3}
    assert found["shared_captions"] == 2, "one text of two images; the one twice at its own image is not ambiguous"
    assert found["unique_texts"] == 6


def test_the_interval_is_the_bootstraps(metrics) -> None:
    found, _ = metrics
    assert found["mr_interval"] == pytest.approx(mr_interval(ImageHits.of(*ranks(SCORES, OWNER), OWNER)), abs=1e-4)


def test_metrics_have_four_digits(split, monkeypatch) -> None:
    monkeypatch.setattr("cmer.retrieval.evaluate.mr_interval", lambda *_: (12.345678, 23.456789))
    found = evaluate(split / "e.safetensors", split, split / "queries.csv")[0]["protocols"]["none"]
    assert found["mr_interval"] == [12.3457, 23.4568]
    assert found["mr"] == round(found["mr"], 4)


def test_the_table_has_the_ranks_of_every_query(metrics) -> None:
    _, table = metrics
    i2t, t2i = ranks(SCORES, OWNER)
    assert table.columns.tolist() == ["protocol", "direction", "query", "image", *i2t._fields]
    own = [image + 2 for image in OWNER]
    for direction, ids, images, counts in (
        ("i2t", [2, 3, 4, 5], [2, 3, 4, 5], i2t),
        ("t2i", list(range(20, 28)), own, t2i),
    ):
        rows = table[table["direction"] == direction]
        assert rows["query"].tolist() == ids and rows["image"].tolist() == images and set(rows["protocol"]) == {"none"}
        for name in i2t._fields:
            assert rows[name].tolist() == getattr(counts, name).tolist() and rows[name].dtype == np.int64
    assert table.index.tolist() == list(range(12))


def test_the_control_is_what_a_ranker_of_labels_gets(split) -> None:
    """All four images are of one class: an image's two captions are among eight, a caption's image among four."""
    found = evaluate(split / "e.safetensors", split, split / "queries.csv")[0]
    assert list(found["controls"]) == ["label_only"]
    assert found["controls"]["label_only"]["t2i_r1"] == 25
    assert found["controls"]["label_only"]["i2t_r1"] == 25
    assert found["controls"]["label_only"]["t2i_r5"] == 100
    assert found["controls"]["label_only"]["i2t_r5"] == round(100 * (1 - 6 * 5 * 4 * 3 * 2 / (8 * 7 * 6 * 5 * 4)), 4)


def test_scores_are_float32_and_the_same_in_blocks_of_any_size(tmp_path, monkeypatch) -> None:
    draw = np.random.default_rng(0)
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in draw.normal(size=(2, 9, 5)))
    index = draw.integers(0, 9, 20)
    tensors = {"images": images.astype(np.float32), "texts/none": texts.astype(np.float32), "index/none": index}
    save_file(tensors, tmp_path / "e.safetensors")
    expected = (tensors["images"].astype(float) @ tensors["texts/none"].T.astype(float))[:, index]
    for block in (1, 9 * 3, 10**6):
        monkeypatch.setattr("cmer.retrieval.scores.BLOCK", block)
        found = similarity(tmp_path / "e.safetensors", "none")
        assert found.dtype == np.float32 and np.array_equal(found, expected.astype(np.float32))


def test_a_query_with_a_single_tie_is_a_tied_query(tmp_path) -> None:
    write(tmp_path, np.array([[1, 1], [0, 2]], np.float32), [0, 1], ["a", "b"])
    found = evaluate(tmp_path / "e.safetensors", tmp_path, tmp_path / "queries.csv")[0]["protocols"]["none"]
    assert found["tied_queries"] == {"i2t": 1, "t2i": 0}
