import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table, write_embeddings
from safetensors.numpy import save_file

from cmer.config.protocols import PROTOCOLS
from cmer.data.frames import IMAGES, read_frame, write_frame
from cmer.errors import UserError
from cmer.io import sha256
from cmer.retrieval.bootstrap import ImageHits
from cmer.retrieval.evaluate import RanksFile, evaluate, read_hits
from cmer.retrieval.recall import ranks, recalls
from cmer.retrieval.scores import protocols, record, similarity

N = 12
RECORD = {"spec": {"run": "toy", "dataset": "toy", "seed": 1}, "trainable_parameters": 3, "images_seen": 5, "epochs": 1}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def split(tmp_path):
    """12 test images (of 15) with two captions each; the first captions of images 0 and 1 are the same text."""
    images = images_table(15, split=["train"] * 3 + ["test"] * N, label=["", "pond", "nan"] * 5)
    texts = [f"caption {i}" for i in range(2 * N)]
    texts[2] = texts[0]
    queries = pd.DataFrame({"caption_id": range(100, 100 + 2 * N), "image_id": np.repeat(range(3, 15), 2)})
    write_frame(tmp_path / "images.csv", images)
    write_frame(tmp_path / "queries.csv", queries.assign(**dict.fromkeys(PROTOCOLS, texts)))
    return tmp_path


def embeddings(path, names=("none", "oracle")):
    draw = np.random.default_rng(0)
    images, texts = unit(draw.normal(size=(N, 8))), unit(draw.normal(size=(2 * N, 8)))
    index = np.arange(2 * N)
    index[2] = 0
    tensors = {"images": images}
    for name in names:
        tensors |= {f"texts/{name}": texts, f"index/{name}": index}
    write_embeddings(path, tensors, RECORD)
    return images @ texts[index].T


def test_metrics_are_those_of_the_similarity_matrix(split):
    scores = embeddings(split / "e.safetensors")
    metrics, table, queries = evaluate(split / "e.safetensors", split, split / "queries.csv")
    found = metrics["protocols"]
    assert list(found) == ["none", "oracle"]
    direct = recalls(*ranks(scores, np.repeat(np.arange(N), 2))).as_dict()
    assert {name: found["none"][name] for name in direct} == pytest.approx(direct, abs=1e-4)
    assert found["none"]["mr_pessimistic"] <= found["none"]["mr"] <= found["none"]["mr_optimistic"]
    assert found["none"]["mr_interval"][0] < found["none"]["mr"] < found["none"]["mr_interval"][1]
    assert (found["none"]["shared_captions"], found["none"]["unique_texts"]) == (2, 2 * N - 1)
    assert found["none"]["tied_queries"]["t2i"] == 0
    assert metrics["record"] == RECORD | {"embedding": record(split / "e.safetensors")["embedding"]}
    assert metrics["test"] == {"images": N, "captions": 2 * N}
    assert len(table) == 2 * (N + 2 * N)
    write_frame(split / "ranks.csv", table)
    written = RanksFile(split / "ranks.csv", sha256(split / "ranks.csv"))
    read = read_hits(written, "none")
    assert read.ids.tolist() == list(range(3, 15))
    direct_hits = ImageHits.of(*ranks(scores, np.repeat(np.arange(N), 2)), np.repeat(np.arange(N), 2))
    assert np.array_equal(read.images, direct_hits.images) and np.array_equal(read.texts, direct_hits.texts)
    with pytest.raises(UserError, match="no ranks under label protocol 'shuffled'"):
        read_hits(written, "shuffled")
    t2i = table[(table["protocol"] == "none") & (table["direction"] == "t2i")]
    assert t2i["query"].tolist() == list(range(100, 100 + 2 * N))
    assert table.loc[table["direction"] == "i2t", "query"].unique().tolist() == list(range(3, 15))
    assert queries["protocol"] == "none" and queries["best"] and queries["near"]
    for one in [*queries["best"], *queries["near"], *queries["worst"]]:
        column = scores[:, one["caption_id"] - 100]
        assert one["top"] == (3 + np.argsort(-column)[:5]).tolist()
        assert one["rank"] == 1 + (column > column[one["image_id"] - 3]).sum()


def test_pair_scores_and_embeddings_are_read_alike(split):
    scores = embeddings(split / "dual.safetensors", ["none"])
    index = np.arange(2 * N)
    index[2] = 0
    tensors = {"scores/none": scores, "index/none": index}
    write_embeddings(split / "pair.safetensors", tensors, RECORD)
    dual, *_ = evaluate(split / "dual.safetensors", split, split / "queries.csv")
    pair, *_ = evaluate(split / "pair.safetensors", split, split / "queries.csv")
    assert dual == pair
    assert protocols(split / "pair.safetensors") == ["none"]


def test_equal_texts_score_exactly_the_same(split):
    embeddings(split / "e.safetensors")
    scores = similarity(split / "e.safetensors", "none")
    assert np.array_equal(scores[:, 0], scores[:, 2])


def test_files_that_do_not_fit_say_so(split):
    embeddings(split / "e.safetensors")
    with pytest.raises(UserError, match="no embeddings for label protocol 'predicted'"):
        similarity(split / "e.safetensors", "predicted")
    queries = pd.read_csv(split / "queries.csv")
    others = {
        "fewer": queries.iloc[:-1],
        "texts": queries.assign(none=queries["none"].to_numpy()[::-1]),
        "owners": queries.assign(image_id=queries["image_id"].to_numpy()[::-1]),
    }
    for name, other in others.items():
        write_frame(split / f"{name}.csv", other)
        with pytest.raises(UserError, match="is of other test images or queries than"):
            evaluate(split / "e.safetensors", split, split / f"{name}.csv")
    images = read_frame(split / "images.csv", IMAGES)
    (split / "twin").mkdir()
    write_frame(split / "twin/images.csv", images.assign(sha256="1" * 64))  # as many images, with other content
    with pytest.raises(UserError, match="is of other test images or queries than"):
        evaluate(split / "e.safetensors", split / "twin", split / "queries.csv")
    scores = np.zeros((N, 5), np.float32)
    write_embeddings(split / "few.safetensors", {"scores/none": scores, "index/none": np.arange(5)}, RECORD)
    with pytest.raises(UserError, match=f"12 images and 5 captions, but the test split has {N} and {2 * N}"):
        evaluate(split / "few.safetensors", split, split / "queries.csv")
    write_frame(split / "other.csv", queries.iloc[2:])
    with pytest.raises(UserError, match="does not describe the test images"):
        evaluate(split / "e.safetensors", split, split / "other.csv")


def test_missing_damaged_and_unmarked_files_say_so(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        record(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(UserError, match="damaged"):
        record(tmp_path / "bad.safetensors")
    save_file({"images": np.zeros((1, 1))}, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="is not an embeddings file"):
        record(tmp_path / "plain.safetensors")


def test_measuring_and_reporting_do_not_import_torch():
    code = (
        "import sys, cmer.cli.evaluate, cmer.retrieval.evaluate, cmer.reporting.tables, cmer.reporting.show;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("images", np.zeros((N, 8), np.float32), "not unit vectors"),
        ("images", np.full((N, 8), np.nan, np.float32), "not finite"),
        ("images", np.eye(N, 8, dtype=np.float64), "no tensor images of F32 with 2 dimensions"),
        ("images", np.ones(N, np.float32), "no tensor images of F32 with 2 dimensions"),
        ("images", np.eye(N, 9, dtype=np.float32), "not unit vectors|different widths"),
        ("texts/none", 1000 * np.eye(2 * N, 8, dtype=np.float32), "not unit vectors"),
        ("index/none", np.zeros(2 * N, np.float32), "no tensor index/none of I64"),
        ("index/none", np.zeros((2 * N, 1), np.int64), "no tensor index/none of I64 with 1 dimensions"),
        ("index/none", np.full(2 * N, -1), "captions without a text"),
    ],
)
def test_embeddings_that_no_method_gives_are_refused(split, name, wrong, message):
    tensors = {"images": unit(np.ones((N, 8))), "texts/none": unit(np.ones((2 * N, 8))), "index/none": np.arange(2 * N)}
    write_embeddings(split / "e.safetensors", tensors | {name: wrong}, RECORD)
    with pytest.raises(UserError, match=message):
        evaluate(split / "e.safetensors", split, split / "queries.csv")
