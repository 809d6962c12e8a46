"""Scene prompts (CMER, Eq. 14-15): captions with their scene label prepended, and test queries of each protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from cmer.data.pairs import Pairs

SHUFFLE_SEED = 2022
"""Seed of the wrong labels of protocol `shuffled`: the same for every run, so that all runs have the same queries."""


def prompt(template: str, label: str, caption: str) -> str:
    """The template filled with label and caption, or the caption alone if there is no label.

    The label precedes the caption, so a text tower that truncates long texts never removes the label. Braces within
    label and caption are plain text.
    """
    given = {"{label}": label, "{caption}": caption}
    return re.sub(r"\{(?:label|caption)\}", lambda slot: given[slot[0]], template) if label else caption


def augment(template: str, images: pd.DataFrame, captions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prompts of all captions, and the test captions as queries under each label protocol.

    Args:
        template: prompt template with `{label}` and `{caption}`.
        images: rows of images.csv.
        captions: rows of captions.csv.

    Returns:
        a table (caption_id, image_id, caption, label, prompt) of all captions, and a table (caption_id, image_id, none,
        oracle, shuffled) of the test captions. `none` is the plain caption. `oracle` has the image's true label, so it
        uses test labels. `shuffled` has one wrong label per image, drawn from the train classes other than the true
        one. If an image has no label, `oracle` and `shuffled` are the plain caption. The queries of `predicted` depend
        on the run: see `predicted_queries`.
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
            "oracle": test["prompt"],
            "shuffled": _prompts(template, _wrong_labels(test, sorted(set(train["label"]) - {""})), plain),
        }
    )
    return joined[["caption_id", "image_id", "caption", "label", "prompt"]], queries


def predicted_queries(template: str, pairs: Pairs, queries: list[str]) -> list[str]:
    """Queries of protocol `predicted`: each has the label that a classifier predicts from its text.

    The classifier is fitted on the captions that the run trains on: without validation images, excluded captions and
    images beyond the subsample.

    Args:
        template: prompt template with `{label}` and `{caption}`.
        pairs: the dataset as the run sees it.
        queries: plain test captions.
    """
    seen = pairs.captions_of(pairs.train_images)
    names = [*pairs.label_names, ""]  # "" at -1: no label
    labels = [names[label] for label in pairs.labels[pairs.caption_image[seen]]]
    return _prompts(template, predict_labels([pairs.texts[caption] for caption in seen], labels, queries), queries)


def predict_labels(captions: Iterable[str], labels: Iterable[str], queries: list[str]) -> list[str]:
    """Predict the label of each query text with multinomial naive Bayes over word counts.

    All methods use this classifier, so that differences under `predicted` come from how methods use the label.

    Args:
        captions: train captions.
        labels: their labels; captions with the label "" are skipped. No test label is ever read.
        queries: texts to label.

    Returns:
        one label per query; all "" if no train caption has a label, or none contains a word of two letters.
    """
    known = [(caption, label) for caption, label in zip(captions, labels, strict=True) if label]
    if not known:
        return [""] * len(queries)
    classifier = make_pipeline(CountVectorizer(), MultinomialNB())
    try:
        classifier.fit(*zip(*known, strict=True))
    except ValueError:  # no caption has a word of two letters, for example if each is a single Chinese character
        return [""] * len(queries)
    return [str(label) for label in classifier.predict(list(queries))]


def _prompts(template: str, labels: Iterable[str], captions: Iterable[str]) -> list[str]:
    return [prompt(template, label, caption) for label, caption in zip(labels, captions, strict=True)]


def _wrong_labels(test: pd.DataFrame, classes: list[str]) -> list[str]:
    """One wrong label per test image, used for all of its captions, as the true label would be."""
    rng = np.random.default_rng(SHUFFLE_SEED)
    wrong = {}
    for image, label in test.drop_duplicates("image_id")[["image_id", "label"]].itertuples(index=False):
        others = [name for name in classes if name != label] if label else []
        wrong[image] = others[rng.integers(len(others))] if others else ""
    return [wrong[image] for image in test["image_id"]]
