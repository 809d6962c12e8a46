"""trsllava against loops over images, their texts and the queries."""

from itertools import chain

import numpy as np
import pytest
import torch

from cmer.backbones.build import build as build_backbone
from cmer.backbones.tiny.options import TinyOptions
from cmer.config.backbones import FeatureOptions
from cmer.config.runs import RunSpec
from cmer.data.bm25 import BM25
from cmer.features.inputs import Inputs, caption_images, token_texts
from cmer.methods.base import Context
from cmer.methods.build import build
from cmer.methods.trsllava.options import TrsllavaOptions
from cmer.retrieval.embed import encode_images, encode_texts, score

IMAGES = [
    ["a red plane on a runway", "planes"],
    ["two boats at a pier"],
    ["a pond", "a pond between trees", "green; pond; trees", "a quiet place"],
    ["planes", "two boats at a pier"],
]
GALLERY = sorted(set(chain(*IMAGES)))
QUERIES = ["a plane", "boats and a pond", "planes planes", "something else", "a plane"]


def method_of(**options):
    given = TrsllavaOptions(**options)
    tower = None if given.own_towers else build_backbone(TinyOptions(kind="tiny"))
    shapes = None if tower is None else tower.shapes
    return build("trsllava", given, Context(shapes, FeatureOptions(), tower, [], 0, GALLERY)).eval()


def scores_of(method):
    """As the evaluator gets them."""
    texts = {image: [GALLERY.index(text) for text in entry] for image, entry in enumerate(IMAGES)}
    inputs = Inputs(caption_images(texts), token_texts(method.tokenize))
    images = encode_images(method, inputs, np.arange(4), 1, "float32")
    return score(method, images, *encode_texts(method, inputs, QUERIES, "float32"))


def embedded(method, text):
    with torch.no_grad():
        vector = method.backbone.encode_texts(method.backbone.tokenize([text])).pooled[0].double()
    return vector / vector.norm()


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_an_images_score_is_the_best_or_mean_cosine_of_its_texts(reduce, monkeypatch) -> None:
    monkeypatch.setattr("cmer.retrieval.embed.IMAGES_PER_BATCH", 3)
    method = method_of(reduce=reduce)
    reduced = {"max": max, "mean": lambda each: sum(each) / len(each)}[reduce]
    expected = [
        [reduced([float(embedded(method, text) @ embedded(method, query)) for text in entry]) for query in QUERIES]
        for entry in IMAGES
    ]
    assert scores_of(method) == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_bm25_ranks_by_the_best_or_mean_score_of_an_images_texts(reduce) -> None:
    reference = BM25(GALLERY).scores(QUERIES)
    rows = [reference[:, [GALLERY.index(text) for text in entry]] for entry in IMAGES]
    expected = np.array([getattr(row, reduce)(axis=1) for row in rows])
    found = scores_of(method_of(reduce=reduce, encoder="bm25"))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[3, 2] > 0 and not found[:, 3].any(), "no word of that query is known"


def test_equal_texts_of_two_images_tie_exactly() -> None:
    method = method_of()
    assert method.gallery.shape == (len(GALLERY), 32)
    images = method.encode_images(torch.tensor([[GALLERY.index("planes"), -1], [GALLERY.index("planes")] * 2]))
    found = method.score(images, method.encode_texts(method.tokenize(QUERIES)))
    assert torch.equal(found[0], found[1])


def test_nothing_is_trained_and_texts_are_read_in_place_of_images() -> None:
    method = method_of()
    assert method.losses(None, None, None, None, None) == {} and not method.trained() and not TrsllavaOptions.trains
    assert not TrsllavaOptions().own_towers and TrsllavaOptions(encoder="bm25").own_towers
    assert TrsllavaOptions(captioner="x").rich == ("x", None)
    assert TrsllavaOptions(captioner="x", query="rich", query_granularity="keywords").rich == ("x", "keywords")


def test_a_row_says_what_its_queries_are() -> None:
    assert TrsllavaOptions().differences()["query"] == "query: captions"
    assert TrsllavaOptions(query="rich").differences()["query"] == "query: rich"


def test_a_run_has_a_captioner_if_and_only_if_it_reads_rich_texts() -> None:
    tiny, captioner = {"kind": "tiny"}, {"kind": "jsonl", "path": "x.jsonl"}
    run = {"run": "a", "dataset": "d", "seed": 0, "backbone": tiny, "method": "trsllava", "options": {}, "training": {}}
    assert RunSpec(**run, captioner=captioner).views == 1
    assert RunSpec(**run | {"backbone": tiny | {"features": {"views": 4}}}, captioner=captioner).views == 1
    with pytest.raises(ValueError, match="captioner: required by methods that read rich texts, and by no others"):
        RunSpec(**run)
    with pytest.raises(ValueError, match="captioner: required"):
        RunSpec(**run | {"method": "zero_shot"}, captioner=captioner)
