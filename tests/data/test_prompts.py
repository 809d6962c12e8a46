import pandas as pd
from sklearn.metrics import accuracy_score

from cmer.data.prompts import augment, predict_labels, prompt

TEMPLATE = "{label}. {caption}"


def dataset(labels: list[str], splits: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    images = pd.DataFrame({"image_id": range(len(labels)), "label": labels, "split": splits})
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
    assert queries["predicted"].tolist()[:4] == queries["oracle"].tolist()[:4]
    shuffled = [text.split(".")[0] for text in queries["shuffled"][:4]]
    assert set(shuffled) <= {"pond", "port", "forest"} and shuffled[0] == shuffled[1] != "pond"
    assert shuffled[2] == shuffled[3] != "port"
    assert queries["shuffled"][4:].tolist() == queries["none"][4:].tolist()


def test_predicted_reads_no_test_label() -> None:
    images, captions = dataset(["pond", "port"] * 10 + ["pond", "port"], ["train"] * 20 + ["test"] * 2)
    _, before = augment(TEMPLATE, images, captions)
    images.loc[images["split"] == "test", "label"] = ["port", ""]
    _, after = augment(TEMPLATE, images, captions)
    assert before["predicted"].tolist() == after["predicted"].tolist()
    assert before["oracle"].tolist() != after["oracle"].tolist()


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
    for protocol in ("predicted", "oracle", "shuffled"):
        assert queries[protocol].tolist() == queries["none"].tolist()


def test_the_classifier_learns_words() -> None:
    texts = ["boats in water", "ships at a pier", "cars in rows", "many cars"]
    found = predict_labels(texts, ["port", "port", "parking", "parking"], ["a pier with ships", "rows of cars"])
    assert accuracy_score(["port", "parking"], found) == 1


def test_captions_without_a_word_of_two_letters_suggest_nothing() -> None:
    assert predict_labels(["港", "船"], ["port", "ship"], ["港", "a port"]) == ["", ""]
