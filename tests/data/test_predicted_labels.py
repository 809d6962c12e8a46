"""The labels of protocol `predicted` come from train captions alone."""

import pandas as pd
import pytest

from cmer.data.prompts import augment

TRAIN = [("pond", "water with ducks"), ("port", "many boats at piers"), ("forest", "dense green trees")] * 4


def predicted(split, label, caption, train=TRAIN):
    """Predicted query of a test image, beside another image with this split, label and caption."""
    rows = [("train", *pair) for pair in train] + [(split, label, caption), ("test", "forest", "lava lava lava trees")]
    images = pd.DataFrame({"image_id": range(len(rows)), "label": [r[1] for r in rows], "split": [r[0] for r in rows]})
    captions = pd.DataFrame({"caption_id": images.index, "image_id": images.index, "caption": [r[2] for r in rows]})
    return augment("{label}. {caption}", images, captions)[1].set_index("image_id")["predicted"]


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_label_of_a_test_or_val_image_alone_is_never_predicted(split) -> None:
    """However often its own word occurs in captions of that split."""
    found = predicted(split, "volcano", "lava lava lava lava")
    assert found.iloc[-1] == "forest. lava lava lava trees"
    assert not found.str.startswith("volcano").any()


def test_a_label_of_a_train_image_is_predicted_by_its_word() -> None:
    assert predicted("train", "volcano", "lava lava lava lava").iloc[-1] == "volcano. lava lava lava trees"


def test_words_of_test_captions_teach_nothing_about_train_labels() -> None:
    """Test images of class pond say `trees`, which only forests say in training."""
    found = predicted("test", "pond", "dense green trees trees trees")
    assert found.tolist() == ["forest. dense green trees trees trees", "forest. lava lava lava trees"]
