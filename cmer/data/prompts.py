"""Scene prompts (CMER, Eq. 14-15): captions with their scene label in front, and test queries under each protocol."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

SHUFFLE_SEED = 2022
"""Of the wrong labels of protocol `shuffled`: the same for every run, so that runs meet the same queries."""


def prompt(template: str, label: str, caption: str) -> str:
    """The caption in its template, or alone where there is no label.

    The label stands before the caption, so a text tower that cuts a long text's tail never cuts the label.
    """
    return template.replace("{label}", label).replace("{caption}", caption) if label else caption


def augment(template: str, images: pd.DataFrame, captions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prompts of all captions, and the test captions as queries under each label protocol.

    Args:
        template: with `{label}` and `{caption}`.
        images: rows of images.csv.
        captions: rows of captions.csv.

    Returns:
        (caption_id, image_id, caption, label, prompt) of every caption, and (caption_id, image_id, none, predicted,
        oracle, shuffled) of the test captions. `none` is the plain caption. `predicted` carries the label that a
        classifier fitted on train captions reads from the caption. `oracle` carries the image's true label: it uses
        test labels. `shuffled` carries a wrong label, one an image, drawn from the train classes other than the
        true one. Without a label, `oracle` and `shuffled` are the plain caption.
    """
    joined = captions.merge(images[["image_id", "label", "split"]], on="image_id", validate="many_to_one")
    joined["prompt"] = _prompts(template, joined["label"], joined["caption"])
    train, test = joined[joined["split"] == "train"], joined[joined["split"] == "test"]
    plain = test["caption"].tolist()
    queries = pd.DataFrame(
        {
            "caption_id": test["caption_id"],
            "image_id": test["image_id"],
            "none": plain,
            "predicted": _prompts(template, predict_labels(train["caption"], train["label"], plain), plain),
            "oracle": test["prompt"],
            "shuffled": _prompts(template, _wrong_labels(test, sorted(set(train["label"]) - {""})), plain),
        }
    )
    return joined[["caption_id", "image_id", "caption", "label", "prompt"]], queries


def predict_labels(captions: Iterable[str], labels: Iterable[str], queries: list[str]) -> list[str]:
    """The label that each query text suggests, by multinomial naive Bayes over word counts.

    One classifier serves every method, so that `predicted` differs between methods by what they make of the label.

    Args:
        captions: train captions.
        labels: their labels; those with "" are left out. No test label is ever read.
        queries: texts to label.

    Returns:
        one label a query; "" throughout where no train caption has a label, or none a word of two letters.
    """
    known = [(caption, label) for caption, label in zip(captions, labels, strict=True) if label]
    if not known:
        return [""] * len(queries)
    classifier = make_pipeline(CountVectorizer(), MultinomialNB())
    try:
        classifier.fit(*zip(*known, strict=True))
    except ValueError:  # no caption holds a word of two letters, as where each is one Chinese character
        return [""] * len(queries)
    return [str(label) for label in classifier.predict(list(queries))]


def _prompts(template: str, labels: Iterable[str], captions: Iterable[str]) -> list[str]:
    return [prompt(template, label, caption) for label, caption in zip(labels, captions, strict=True)]


def _wrong_labels(test: pd.DataFrame, classes: list[str]) -> list[str]:
    """One wrong label a test image, for each of its captions: as consistent within an image as the true one is."""
    rng = np.random.default_rng(SHUFFLE_SEED)
    wrong = {}
    for image, label in test.drop_duplicates("image_id")[["image_id", "label"]].itertuples(index=False):
        others = [name for name in classes if name != label] if label else []
        wrong[image] = others[rng.integers(len(others))] if others else ""
    return [wrong[image] for image in test["image_id"]]
