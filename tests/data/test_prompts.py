from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from artifacts import images_table
from sklearn.metrics import accuracy_score

from cmer.data.frames import write_frame
from cmer.data.pairs import Pairs
from cmer.data.prompts import augment, predict_labels, predicted_queries, prompt

TEMPLATE = "{label}. {caption}"


def dataset(labels: list[str], splits: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    images = images_table(len(labels), label=labels, split=splits)
    rows = [
        (i, f"{word} seen near {label or 'nothing'} .") for i, label in enumerate(labels) for word in ("one", "two")
    ]
    captions = pd.DataFrame(rows, columns=["image_id", "caption"])
    captions.insert(0, "caption_id", range(len(rows)))
    return images, captions


def test_a_prompt_holds_label_and_caption_or_the_caption_alone() -> None:
    assert prompt(TEMPLATE, "bare land", "a {plain} .") == "bare land. a {plain} ."
    assert prompt("a photo of {label}, {caption}", "port", "boats .") == "a photo of port, boats ."
    assert prompt(TEMPLATE, "", "boats .") == "boats ."
    assert prompt(TEMPLATE, "{caption}", "a {label} .") == "{caption}. a {label} ."


def test_queries_under_each_protocol() -> None:
    labels = ["pond", "port", "forest"] * 20 + ["pond", "port", ""]
    images, captions = dataset(labels, ["train"] * 60 + ["test"] * 3)
    prompted, queries = augment(TEMPLATE, images, captions)
    assert prompted.columns.tolist() == ["caption_id", "image_id", "caption", "label", "prompt"]
    assert len(prompted) == 126 and prompted["prompt"][0] == "pond. one seen near pond ."
    assert queries["image_id"].tolist() == [60, 60, 61, 61, 62, 62]
    assert queries["none"].tolist() == captions["caption"][120:].tolist()
    assert queries["oracle"].tolist() == [
        "pond. one seen near pond .", "pond. two seen near pond .",
        "port. one seen near port .", "port. two seen near port .",
        "one seen near nothing .", "two seen near nothing .",
    ]  # fmt: skip
    shuffled = [text.split(".")[0] for text in queries["shuffled"][:4]]
    assert set(shuffled) <= {"pond", "port", "forest"} and shuffled[0] == shuffled[1] != "pond"
    assert shuffled[2] == shuffled[3] != "port"
    assert queries["shuffled"][4:].tolist() == queries["none"][4:].tolist()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Pairs]:
    """The function that reads a dataset of these labels and splits as a run sees it."""

    def read(labels: list[str], splits: list[str], validation: list[int], excluded: list[int]) -> Pairs:
        images, captions = dataset(labels, splits)
        write_frame(tmp_path / "images.csv", images)
        write_frame(tmp_path / "captions.csv", augment(TEMPLATE, images, captions)[0])
        write_frame(tmp_path / "validation.csv", pd.DataFrame({"image_id": validation}))
        write_frame(
            tmp_path / "excluded.csv", pd.DataFrame({"caption_id": excluded, "image_id": 0, "reason": ""}, dtype=object)
        )
        return Pairs.read(tmp_path, *(tmp_path / f"{name}.csv" for name in ("captions", "validation", "excluded")))

    return read


TEST = [f"one seen near {name} ." for name in ("pond", "port", "quay", "farm", "mill")]


def test_predicted_labels_are_those_of_the_captions_that_the_run_trains_on(read) -> None:
    """Only `farm` is on train captions: `port` is excluded, `quay` validates, and `mill` is a test image."""
    labels, splits = ["pond"] * 5 + ["farm", "port", "quay", "mill"], ["train"] * 8 + ["test"]
    pairs = read(labels, splits, [7], excluded=[12, 13])
    found = [query.split(". ")[0] for query in predicted_queries(TEMPLATE, pairs, TEST)]
    assert found == ["pond", "pond", "pond", "farm", "pond"]
    everything = read(labels, splits, [0], excluded=[])
    found = [query.split(". ")[0] for query in predicted_queries(TEMPLATE, everything, TEST)]
    assert found == ["pond", "port", "quay", "farm", "pond"]


def test_predicted_labels_are_those_of_the_subsample(read) -> None:
    pairs = read(["pond", "port", "quay", "farm", "pond"], ["train"] * 4 + ["test"], [0], []).subsample(1)
    (kept,) = pairs.train_images
    queries = predicted_queries(TEMPLATE, pairs, TEST)
    assert {query.split(". ")[0] for query in queries} == {["pond", "port", "quay", "farm"][kept]}
    assert [query.split(". ", 1)[1] for query in queries] == TEST


def test_wrong_labels_are_uniform_over_the_other_train_classes() -> None:
    images, captions = dataset(["a b", "c d", "e f"] + ["a b"] * 600, ["train"] * 3 + ["test"] * 600)
    _, queries = augment(TEMPLATE, images, captions)
    share = queries["shuffled"].str.startswith("c d.").mean()
    assert not queries["shuffled"].str.startswith("a b.").any()
    assert abs(share - 0.5) < 0.08


def test_without_labels_every_protocol_is_plain() -> None:
    images, captions = dataset([""] * 4, ["train", "train", "test", "test"])
    prompted, queries = augment(TEMPLATE, images, captions)
    assert (prompted["prompt"] == prompted["caption"]).all()
    for protocol in ("oracle", "shuffled"):
        assert queries[protocol].tolist() == queries["none"].tolist()


def test_the_classifier_learns_words() -> None:
    texts = ["boats in water", "ships at a pier", "cars in rows", "many cars"]
    found = predict_labels(texts, ["port", "port", "parking", "parking"], ["a pier with ships", "rows of cars"])
    assert accuracy_score(["port", "parking"], found) == 1


def test_captions_without_a_word_of_two_letters_suggest_nothing() -> None:
    assert predict_labels(["港", "船"], ["port", "ship"], ["港", "a port"]) == ["", ""]
