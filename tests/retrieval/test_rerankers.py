"""Reranked scores against naive versions of their formulas, and the choice of a setting on validation."""

import math

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table, write_embeddings

from cmer.config.protocols import PROTOCOLS
from cmer.data.frames import write_frame
from cmer.errors import UserError
from cmer.retrieval.evaluate import evaluate
from cmer.retrieval.recall import ranks, recalls
from cmer.retrieval.rerankers.fusion import Fusion
from cmer.retrieval.rerankers.smr import Smr
from cmer.retrieval.reranking import RerankSpec, fit
from cmer.retrieval.scores import Bank, Scored, read_scored, similarity

N, M, WIDTH, T = 6, 12, 8, 0.2
OWNER = np.repeat(np.arange(N), 2)
RECORD = {"spec": {"run": "toy", "dataset": "toy", "seed": 1}, "trainable_parameters": 3, "images_seen": 5, "epochs": 1}
EXPONENTS = [(0.0, 0.0), (1.0, 1.0), (0.5, 2.0), (2.0, 0.0), (0.0, 1.0)]


def unit(seed: int, rows: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def scored(seed: int = 0, images: int = N, captions: int = M) -> Scored:
    one, two = unit(seed, images), unit(seed + 1, captions)
    return Scored(one @ two.T, one, two, Bank(unit(90, 5), unit(91, 7)))


def probability(x: float, others: list[float]) -> float:
    """Softmax of `x` among itself and `others`."""
    return math.exp(x / T) / (math.exp(x / T) + sum(math.exp(other / T) for other in others))


def naive_smr(s: np.ndarray, one: float, two: float) -> np.ndarray:
    found = np.empty(s.shape)
    for i in range(len(s)):
        for j in range(s.shape[1]):
            captions = probability(s[i, j], [s[i, k] for k in range(s.shape[1]) if k != j])
            images = probability(s[i, j], [s[k, j] for k in range(len(s)) if k != i])
            found[i, j] = s[i, j] * captions**one * images**two
    return found


@pytest.mark.parametrize("exponents", EXPONENTS)
def test_smr_is_the_similarity_times_powers_of_both_softmaxes(exponents) -> None:
    given = scored()
    found = Smr(temperature=T).rescorer(given)(dict(zip(("gamma1", "gamma2"), exponents, strict=True)))
    assert found.i2t is found.t2i
    assert found.i2t == pytest.approx(naive_smr(given.scores, *exponents), rel=1e-6)


@pytest.mark.parametrize("queries", ["test", "train"])
def test_exponents_of_zero_leave_every_bit_of_the_scores(queries) -> None:
    given = scored()
    found = Smr(queries=queries).rescorer(given)({"gamma1": 0.0, "gamma2": 0.0})
    for direction in found:
        assert (direction.astype(np.float32).view(np.uint32) == given.scores.view(np.uint32)).all()


@pytest.mark.parametrize("exponents", EXPONENTS)
def test_with_a_bank_a_query_is_among_itself_and_the_train_queries(exponents) -> None:
    given = scored()
    assert given.bank is not None
    found = Smr(temperature=T, queries="train").rescorer(given)(dict(zip(("gamma1", "gamma2"), exponents, strict=True)))
    s, one, two = given.scores, *exponents
    for i in range(N):
        for j in range(M):
            captions = probability(s[i, j], [s[i, k] for k in range(M) if k != j])
            images = probability(s[i, j], [s[k, j] for k in range(N) if k != i])
            known_images = probability(s[i, j], [float(x @ given.captions[j]) for x in given.bank.images])
            known_captions = probability(s[i, j], [float(given.images[i] @ x) for x in given.bank.captions])
            assert found.i2t[i, j] == pytest.approx(s[i, j] * captions**one * known_images**two, rel=1e-5)
            assert found.t2i[i, j] == pytest.approx(s[i, j] * known_captions**one * images**two, rel=1e-5)


def test_only_the_transductive_form_reads_other_test_queries() -> None:
    whole, setting = scored(), {"gamma1": 1.0, "gamma2": 1.0}
    fewer = Scored(whole.scores[:, :4], whole.images, whole.captions[:4], whole.bank)  # 4 of the caption queries
    for queries, alike in (("train", True), ("test", False)):
        reranker = Smr(temperature=T, queries=queries)
        both = [reranker.rescorer(given)(setting).t2i[:, :4] for given in (whole, fewer)]
        assert np.allclose(*both, rtol=1e-12, atol=0) is alike
        assert reranker.transductive is not alike
    fewer = Scored(whole.scores[:3], whole.images[:3], whole.captions, whole.bank)  # 3 of the image queries
    both = [Smr(queries="train").rescorer(given)(setting).i2t[:3] for given in (whole, fewer)]
    assert np.allclose(*both, rtol=1e-12, atol=0)


def test_equal_captions_stay_tied() -> None:
    given = scored()
    given.captions[7] = given.captions[2]
    given.scores[:, 7] = given.scores[:, 2]
    for queries in ("test", "train"):
        for found in Smr(queries=queries).rescorer(given)({"gamma1": 0.7, "gamma2": 1.3}):
            assert (found[:, 7] == found[:, 2]).all()


def test_a_bank_needs_embeddings() -> None:
    with pytest.raises(UserError, match="no bank of training queries"):
        Smr(queries="train").rescorer(Scored(scored().scores))


def test_fusion_adds_scores_on_the_scale_that_validation_gives() -> None:
    s, t = scored().scores, 40 * scored(5).scores
    settings = Fusion(partner="other", weights=[2.0, 0.0]).grid(Scored(s, partner=t))
    scale = s.std() / t.std()
    assert [setting["weight"] for setting in settings] == [0.0, 2.0]
    assert all(setting["scale"] == pytest.approx(scale, rel=1e-5) for setting in settings)
    other = Scored(scored(8).scores, partner=scored(9).scores)
    rescored = Fusion(partner="other").rescorer(other)
    assert (rescored(settings[0]).i2t == other.scores).all()
    assert rescored(settings[1]).t2i == pytest.approx(other.scores + 2 * scale * other.partner, rel=1e-5)


# --- on files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Embeddings of 6 test images, a bank whose validation captions lie off their images towards a hub, and tables."""
    write_frame(tmp_path / "images.csv", images_table(N, split=["test"] * N))
    queries = pd.DataFrame({"caption_id": range(M), "image_id": OWNER})
    write_frame(tmp_path / "queries.csv", queries.assign(**{name: [f"c {i}" for i in range(M)] for name in PROTOCOLS}))
    write(tmp_path / "e.safetensors", 20, {})
    write(tmp_path / "bank.safetensors", 30, {"bank": True}, hub=1.5)
    return tmp_path


def write(path, seed, record, run="toy", hub=0.0) -> None:
    images = unit(seed, N)
    texts = images[OWNER] + 0.6 * unit(seed + 1, M) + hub * images[:1]
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    tensors = {"images": images, "texts/none": texts, "index/none": np.arange(M)}
    if record:
        tensors |= {"owner": OWNER, "bank/images": unit(90, 5), "bank/captions": unit(91, 7)}
    write_embeddings(path, tensors, RECORD | {"spec": RECORD["spec"] | {"run": run}} | record)


def spec(**reranker) -> RerankSpec:
    return RerankSpec.model_validate({"name": "toy.again", "reranker": {"kind": "smr"} | reranker})


def naive_mr(scores: np.ndarray) -> float:
    return recalls(*ranks(scores, OWNER)).mr


def test_the_setting_with_the_best_validation_recall_is_chosen(files) -> None:
    given = spec(gamma1=[0.5, 0.0], gamma2=[1.0, 0.0, 2.0], temperature=T)
    fitted = fit(given, files / "e.safetensors", files / "bank.safetensors")
    s = similarity(files / "bank.safetensors", "none")
    expected = {(one, two): naive_mr(naive_smr(s, one, two)) for one in (0.0, 0.5) for two in (0.0, 1.0, 2.0)}
    found = fitted.grid.set_index(["gamma1", "gamma2"])["val_mr"].to_dict()
    assert found == {pair: pytest.approx(mr, abs=1e-4) for pair, mr in expected.items()}
    assert len(set(expected.values())) > 2 and max(expected.values()) > expected[0.0, 0.0]
    best = next(pair for pair, mr in expected.items() if mr == max(expected.values()))  # the smallest of equals
    assert (fitted.chosen["gamma1"], fitted.chosen["gamma2"]) == best


def test_the_test_split_is_scored_with_the_chosen_setting(files) -> None:
    fitted = fit(spec(gamma1=[1.0], gamma2=[2.0], temperature=T), files / "e.safetensors", files / "bank.safetensors")
    metrics, table, _ = evaluate(files / "e.safetensors", files, files / "queries.csv", fitted)
    s = naive_smr(similarity(files / "e.safetensors", "none"), 1.0, 2.0)
    assert metrics["protocols"]["none"]["mr"] == pytest.approx(naive_mr(s), abs=1e-4)
    expected = ranks(s, OWNER)
    for direction, wanted in zip(("i2t", "t2i"), expected, strict=True):
        assert (table[table["direction"] == direction]["greater"].to_numpy() == wanted.greater).all()
    facts = metrics["record"]["reranking"]
    assert (facts["name"], facts["chosen"]) == ("toy.again", {"gamma1": 1.0, "gamma2": 2.0})
    assert metrics["record"]["spec"]["run"] == "toy" and len(facts["grid"]) == 1


def test_directions_are_ranked_by_their_own_scores(files) -> None:
    fitted = fit(spec(gamma1=[1.0], gamma2=[1.0], queries="train"), files / "e.safetensors", files / "bank.safetensors")
    _, table, queries = evaluate(files / "e.safetensors", files, files / "queries.csv", fitted)
    directed = fitted.rescored(read_scored(files / "e.safetensors", "none", files / "bank.safetensors"))
    assert not np.allclose(directed.i2t, directed.t2i)
    for direction, scores, place in (("i2t", directed.i2t, 0), ("t2i", directed.t2i, 1)):
        wanted = ranks(scores, OWNER)[place]
        assert (table[table["direction"] == direction]["greater"].to_numpy() == wanted.greater).all()
    for one in queries["best"] + queries["near"]:
        assert one["top"] == np.argsort(-directed.t2i[:, one["caption_id"]], kind="stable")[:5].tolist()


def test_a_partner_is_read_for_validation_and_test(files) -> None:
    write(files / "other.safetensors", 40, {}, run="other")
    write(files / "other_bank.safetensors", 50, {"bank": True}, run="other")
    given = spec(kind="fusion", partner="other", weights=[1.0])
    names = ("e", "bank", "other", "other_bank")
    fitted = fit(given, *[files / f"{name}.safetensors" for name in names])
    val = [similarity(files / name, "none") for name in ("bank.safetensors", "other_bank.safetensors")]
    assert fitted.chosen["scale"] == pytest.approx(val[0].std() / val[1].std(), rel=1e-5)
    test = [similarity(files / name, "none") for name in ("e.safetensors", "other.safetensors")]
    scored = read_scored(files / "e.safetensors", "none", fitted.bank, fitted.partner)
    found = fitted.rescored(scored).i2t
    assert found == pytest.approx(test[0] + fitted.chosen["scale"] * test[1], rel=1e-5)


def test_files_that_do_not_fit_are_refused(files) -> None:
    own = [files / "e.safetensors", files / "bank.safetensors"]
    with pytest.raises(UserError, match="is not a bank; give a file that `cmer bank` wrote"):
        fit(spec(), own[0], own[0])
    with pytest.raises(UserError, match="reads other partner run"):
        fit(spec(kind="fusion", partner="other"), *own)
    with pytest.raises(UserError, match="is of run toy, not other"):
        fit(spec(kind="fusion", partner="other"), *own, own[0], own[1])
    write_embeddings(files / "few.safetensors", {"scores/none": np.zeros((2, 3), np.float32)}, RECORD)
    with pytest.raises(UserError, match="scores of another split"):
        read_scored(files / "e.safetensors", "none", files / "bank.safetensors", files / "few.safetensors")


def test_files_of_different_trainings_are_not_combined(files) -> None:
    own = [files / "e.safetensors", files / "bank.safetensors"]
    fusion = spec(kind="fusion", partner="other")
    partner, bank = files / "other.safetensors", files / "other_bank.safetensors"
    write(bank, 50, {"bank": True}, run="other")
    with pytest.raises(UserError, match=r"other_bank\.safetensors is of another training than .*e\.safetensors"):
        fit(spec(), own[0], bank)
    write(partner, 40, {}, run="other")
    with pytest.raises(UserError, match=r"/bank\.safetensors is of another training than .*other\.safetensors"):
        fit(fusion, *own, partner, own[1])
    fit(fusion, *own, partner, bank)
    for what, value in (("dataset", "elsewhere"), ("seed", 99)):
        write(partner, 40, {"spec": RECORD["spec"] | {"run": "other", what: value}})
        with pytest.raises(UserError, match=f"other.safetensors is of {what} {value}, .*e.safetensors of"):
            fit(fusion, *own, partner, bank)
    write_frame(files / "images.csv", images_table(N, split=["test"] * N, sha256="1" * 64))
    write(partner, 40, {}, run="other")
    with pytest.raises(UserError, match="has another test split than"):
        fit(fusion, *own, partner, bank)


def test_a_grid_that_would_take_for_ever_is_refused() -> None:
    many = [number / 100 for number in range(101)]
    for settings in ({"gamma1": many[:21]}, {"gamma2": many[:21]}, {"kind": "fusion", "partner": "a", "weights": many}):
        with pytest.raises(ValueError, match=r"at most (20|100) items"):
            spec(**settings)
    assert len(spec(gamma1=many[:20]).reranker.gamma1) == 20
