"""The hubness correction against a naive loop, its form as embeddings, and its use on files."""

import json
import math

import numpy as np
import pytest
from artifacts import write_embeddings

from cmer.errors import UserError
from cmer.retrieval.recall import ranks, recalls
from cmer.retrieval.rerankers.querybank import Querybank
from cmer.retrieval.reranking import RerankSpec, fit
from cmer.retrieval.scores import Bank, Scored, read_scored

IMAGES, CAPTIONS, WIDTH = 4, 8, 6
OWNER = np.repeat(np.arange(IMAGES), 2)
SETTINGS = [(10.0, 1.0), (3.0, 0.5), (25.0, 2.0)]


def unit(seed: int, rows: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def scored(captions: int = CAPTIONS) -> Scored:
    one, two = unit(1, IMAGES), unit(2, CAPTIONS)[:captions]
    return Scored(one @ two.T, one, two, Bank(unit(3, 5), unit(4, 7)))


def rescored(given: Scored, beta: float, weight: float) -> np.ndarray:
    found = Querybank().rescorer(given)({"beta": beta, "weight": weight})
    assert found.i2t is found.t2i
    return np.asarray(found.i2t)


def mass(x: np.ndarray, bank: np.ndarray, beta: float) -> float:
    return math.log(sum(math.exp(beta * float(x @ other)) for other in bank)) / beta


@pytest.mark.parametrize(("beta", "weight"), SETTINGS)
def test_both_sides_lose_their_closeness_to_the_train_queries(beta, weight) -> None:
    given = scored()
    assert given.bank is not None
    found = rescored(given, beta, weight)
    for i in range(IMAGES):
        for t in range(CAPTIONS):
            v, s = given.images[i], given.captions[t]
            of_image, of_caption = mass(v, given.bank.captions, beta), mass(s, given.bank.images, beta)
            assert found[i, t] == pytest.approx(float(v @ s) - weight * of_image - weight * of_caption, abs=1e-6)


@pytest.mark.parametrize(("beta", "weight"), SETTINGS)
def test_the_corrected_score_is_a_dot_product(beta, weight) -> None:
    given = scored()
    assert given.bank is not None
    of_images = [[-weight * mass(v, given.bank.captions, beta), 1.0] for v in given.images]
    of_captions = [[1.0, -weight * mass(s, given.bank.images, beta)] for s in given.captions]
    longer = np.hstack([given.images, of_images]) @ np.hstack([given.captions, of_captions]).T
    assert rescored(given, beta, weight) == pytest.approx(longer, abs=1e-6)


def test_a_weight_of_zero_leaves_every_bit_of_the_scores() -> None:
    given = scored()
    found = rescored(given, 10.0, 0.0).astype(np.float32)
    assert (found.view(np.uint32) == given.scores.view(np.uint32)).all()


def test_no_other_test_query_is_read_and_equal_captions_stay_tied() -> None:
    whole, fewer = rescored(scored(), 10.0, 1.0), rescored(scored(captions=3), 10.0, 1.0)
    assert np.allclose(whole[:, :3], fewer, rtol=1e-12, atol=0) and not Querybank().transductive
    given = scored()
    given.captions[5], given.scores[:, 5] = given.captions[1], given.scores[:, 1]
    tied = rescored(given, 10.0, 1.0)
    assert (tied[:, 5] == tied[:, 1]).all()


def test_a_method_that_scores_pairs_has_no_bank() -> None:
    with pytest.raises(UserError, match="omit `querybank` for it"):
        Querybank().rescorer(Scored(scored().scores))


def test_the_settings_are_fixed_or_chosen_on_validation(tmp_path) -> None:
    record = {"spec": {"run": "toy"}, "trainable_parameters": 3, "images_seen": 5, "epochs": 1}
    texts = unit(6, IMAGES)[OWNER] + 0.6 * unit(7, CAPTIONS) + 1.5 * unit(6, IMAGES)[:1]  # the first image is a hub
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    tensors = {"images": unit(6, IMAGES), "texts/none": texts, "index/none": np.arange(CAPTIONS)}
    known = {"owner": OWNER, "bank/images": unit(6, IMAGES), "bank/captions": texts[::2]}
    write_embeddings(tmp_path / "e.safetensors", tensors, record)
    write_embeddings(tmp_path / "bank.safetensors", tensors | known, record | {"bank": True})
    files = tmp_path / "e.safetensors", tmp_path / "bank.safetensors"
    fixed = RerankSpec.model_validate({"name": "toy.q", "reranker": {"kind": "querybank"}})
    assert fit(fixed, *files).chosen == {"beta": 10.0, "weight": 1.0}
    grid = {"kind": "querybank", "beta": [20.0, 2.0], "weight": [1.0, 0.0]}
    fitted = fit(RerankSpec.model_validate({"name": "toy.q", "reranker": grid}), *files)
    given = read_scored(files[1], "none", files[1])
    expected = {
        (beta, weight): recalls(*ranks(rescored(given, beta, weight), OWNER)).mr
        for beta in (2.0, 20.0)
        for weight in (0.0, 1.0)
    }
    found = fitted.grid.set_index(["beta", "weight"])["val_mr"].to_dict()
    assert found == {pair: pytest.approx(mr, abs=1e-4) for pair, mr in expected.items()}
    assert max(expected.values()) > expected[2.0, 0.0]
    assert tuple(fitted.chosen.values()) == next(pair for pair, mr in expected.items() if mr == max(expected.values()))
    assert json.loads(json.dumps(fitted.facts()))["chosen"] == dict(fitted.chosen)
