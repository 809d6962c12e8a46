"""Counts on the real annotation files, where the environment says they lie."""

import math
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
import pytest

from cmer.config.datasets import ListLabels, NoLabels, PrefixLabels
from cmer.data.annotations import Entry, read_annotations
from cmer.data.cards import card, fingerprint
from cmer.data.fingerprint import compare, fingerprint_of
from cmer.data.labels import known_labels, labels_of, merged
from cmer.data.prompts import predict_labels

pytestmark = pytest.mark.skipif("CMER_DATA_ROOT" not in os.environ, reason="CMER_DATA_ROOT is not set")
FILES = {
    "rsicd": "dataset_rsicd.json", "rsitmd": "dataset_RSITMD.json", "ucm": "dataset.json", "sydney": "dataset.json",
}  # fmt: skip


def read(name: str) -> tuple[Path, list[Entry]]:
    root = Path(os.environ["CMER_DATA_ROOT"]) / name
    return root, read_annotations(root / FILES[name])


def captions(entries: list[Entry], *splits: str) -> list[tuple[str, str]]:
    return [(text, entry.filename) for entry in entries if entry.split in splits for text in entry.captions]


def shared(entries: list[Entry]) -> int:
    owners = defaultdict(set)
    for text, file in captions(entries, "test"):
        owners[text].add(file)
    return sum(len(owners[text]) > 1 for text, _ in captions(entries, "test"))


def naive_bayes(train: pd.DataFrame, queries: list[str]) -> list[str]:
    """Multinomial naive Bayes with add-one smoothing, written out."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in zip(train["text"], train["label"], strict=True):
        words[label].update(re.findall(r"\b\w\w+\b", text.lower()))
    known, prior = set().union(*words.values()), Counter(train["label"])
    total = {label: math.log(counts.total() + len(known)) for label, counts in words.items()}

    def score(label: str, text: str) -> float:
        asked = [word for word in re.findall(r"\b\w\w+\b", text.lower()) if word in known]
        return math.log(prior[label]) + sum(math.log(words[label][word] + 1) - total[label] for word in asked)

    return [max(words, key=lambda label: score(label, text)) for text in queries]


def accuracy(entries: list[Entry], labels: list[str]) -> float:
    rows = pd.DataFrame(
        [(e.split, text, label) for e, label in zip(entries, labels, strict=True) for text in e.captions],
        columns=["split", "text", "label"],
    )
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    predicted = predict_labels(train["text"], train["label"], test["text"].tolist())
    assert predicted[:500] == naive_bayes(train, test["text"].tolist()[:500])
    return 100 * sum(a == b for a, b in zip(predicted, test["label"], strict=True)) / len(test)


def test_rsicd() -> None:
    root, entries = read("rsicd")
    assert Counter(entry.split for entry in entries) == {"train": 8734, "val": 1094, "test": 1093}
    assert len(captions(entries, "test")) == 5465
    assert len({text for text, _ in captions(entries, "train")}) == 12973
    assert len(set(captions(entries, "train"))) == 17813
    assert shared(entries) == 641
    blank = [(text, e.split) for e in entries for text in e.captions if not any(map(str.isalpha, text))]
    assert Counter(split for _, split in blank) == {"train": 4, "val": 1}
    by_prefix = labels_of(entries, PrefixLabels(), root)
    assert by_prefix.count("") == 921 and len(set(by_prefix)) == 31
    labels = labels_of(entries, ListLabels(rule="lists", folder="txtclasses_rsicd"), root)
    assert "" not in labels and len(set(labels)) == 31 and labels.count("playfields") == 661
    assert all(a == b for a, b in zip(by_prefix, labels, strict=True) if a)
    assert abs(accuracy(entries, labels) - 75.4) < 1
    assert merged(labels, {"playfields": "playground"}).count("playground") == 1031


def test_rsitmd() -> None:
    root, entries = read("rsitmd")
    assert Counter(entry.split for entry in entries) == {"train": 4291, "test": 452}
    labels = labels_of(entries, PrefixLabels(), root)
    classes = {
        split: {x for e, x in zip(entries, labels, strict=True) if e.split == split} for split in ("train", "test")
    }
    assert len(classes["train"]) == 33 and len(classes["test"]) == 32 and "" not in classes["train"]
    assert shared(entries) == 6
    assert 68 < accuracy(entries, labels) < 73  # 67.4 to 71.9 over the usual ways to cut words and to smooth


def test_ucm_and_sydney() -> None:
    _, ucm = read("ucm")
    assert Counter(entry.split for entry in ucm) == {"train": 1890, "test": 210} and shared(ucm) == 868
    root, sydney = read("sydney")
    assert Counter(entry.split for entry in sydney) == {"train": 497, "val": 58, "test": 58}
    assert set(labels_of(sydney, NoLabels(rule="none"), root)) == {""}


@pytest.mark.parametrize("name", list(FILES))
def test_the_fingerprints_are_those_of_the_real_files(name: str) -> None:
    root, entries = read(name)
    labels, warning = known_labels(entries, card(name).labels, root)
    assert warning == "" and fingerprint_of(entries, labels) == fingerprint(name).model_copy(update={"pictures": {}})
    assert (root / card(name).annotations).is_file()


def test_ten_test_images_swapped_into_train_are_found_and_named() -> None:
    root, entries = read("rsicd")
    labels, _ = known_labels(entries, card("rsicd").labels, root)
    test = [number for number, entry in enumerate(entries) if entry.split == "test"][100:110]
    train = [number for number, entry in enumerate(entries) if entry.split == "train"][500:510]
    swapped = list(entries)
    for numbers, split in ((test, "train"), (train, "test")):
        for number in numbers:
            swapped[number] = entries[number].model_copy(update={"split": split})
    found = {match.what: match.names for match in compare(fingerprint("rsicd"), swapped, labels) if not match.same}
    named = [f"{entries[number].filename} is in train" for number in test]
    assert found["names of the test images"][:10] == named and len(found["names of the test images"]) == 20
    assert set(found) == {"names of the test images", "text of the train captions", "text of the test captions"}
