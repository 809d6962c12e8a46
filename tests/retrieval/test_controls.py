import os
from pathlib import Path

import numpy as np
import pytest

from cmer.retrieval.controls import label_only
from cmer.retrieval.recall import ranks, recalls

ROOT = os.environ.get("CMER_DATA_ROOT")


def test_equals_ranking_a_matrix_of_equal_labels():
    draw = np.random.default_rng(0)
    labels = draw.choice(["", "pond", "river", "farmland"], 40)
    owner = np.repeat(np.arange(40), draw.integers(1, 6, 40))
    scores = (labels[:, None] == labels[owner]).astype(float)
    assert label_only(labels.tolist(), owner).as_dict() == pytest.approx(recalls(*ranks(scores, owner)).as_dict())


def test_a_class_of_its_own_for_every_image_is_perfect():
    assert label_only(list("abcdef"), np.arange(6)).mr == 100


def real(json_file: str, lists: str | None):
    from cmer.config.datasets import ListLabels, PrefixLabels
    from cmer.data.annotations import read_annotations
    from cmer.data.labels import labels_of

    path = Path(str(ROOT)) / json_file
    test = [entry for entry in read_annotations(path) if entry.split == "test"]
    rule = ListLabels(rule="lists", folder=lists) if lists else PrefixLabels()
    owner = np.repeat(np.arange(len(test)), [len(entry.sentences) for entry in test])
    return label_only(labels_of(test, rule, path.parent), owner)


@pytest.mark.skipif(ROOT is None, reason="CMER_DATA_ROOT is not set")
def test_on_the_real_class_sizes_of_rsitmd():
    found = real("rsitmd/dataset_RSITMD.json", None)
    assert [found.t2i_r1, found.t2i_r5, found.t2i_r10] == pytest.approx([7.08, 33.63, 65.49], abs=0.005)
    assert [found.i2t_r1, found.i2t_r5, found.i2t_r10] == pytest.approx([7.08, 29.89, 51.37], abs=0.005)
    assert found.mr == pytest.approx(32.42, abs=0.005)


@pytest.mark.skipif(ROOT is None, reason="CMER_DATA_ROOT is not set")
@pytest.mark.parametrize("lists", ["txtclasses_rsicd", None])  # the 66 unnamed test images are one of the lists
def test_on_the_real_class_sizes_of_rsicd(lists):
    found = real("rsicd/dataset_rsicd.json", lists)
    assert [found.t2i_r1, found.t2i_r5, found.t2i_r10] == pytest.approx([2.84, 14.18, 28.36], abs=0.005)
    assert [found.i2t_r1, found.i2t_r5, found.i2t_r10] == pytest.approx([2.84, 13.52, 25.46], abs=0.005)
    assert found.mr == pytest.approx(14.53, abs=0.005)
