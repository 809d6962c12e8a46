"""The labels of protocol `predicted` come from the captions that a run trains on, and from no others."""

from pathlib import Path

import pandas as pd
import pytest
from artifacts import images_table

from cmer.data.frames import write_frame
from cmer.data.pairs import Pairs
from cmer.data.prompts import augment, predicted_queries

TRAIN = [("pond", "water with ducks"), ("port", "many boats at piers"), ("forest", "dense green trees")] * 4


@pytest.fixture
def predicted(tmp_path: Path):
    """Function from the split, label and caption of one more image to the predicted queries of the test images."""

    def predicted(split: str, label: str, caption: str) -> list[str]:
        rows = [("train", *pair) for pair in TRAIN] + [(split, label, caption)]
        rows.append(("test", "forest", "lava lava lava trees"))
        splits, labels, texts = zip(*rows, strict=True)
        images = images_table(len(rows), split=splits, label=labels)
        captions = pd.DataFrame({"caption_id": images["image_id"], "image_id": images["image_id"], "caption": texts})
        prompted, queries = augment("{label}. {caption}", images, captions)
        write_frame(tmp_path / "images.csv", images)
        write_frame(tmp_path / "captions.csv", prompted)
        pairs = Pairs.read(tmp_path, tmp_path / "captions.csv")
        return predicted_queries("{label}. {caption}", pairs, queries["none"].tolist())

    return predicted


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_label_of_a_test_or_val_image_alone_is_never_predicted(predicted, split) -> None:
    """However often its own word occurs in captions of that split."""
    found = predicted(split, "volcano", "lava lava lava lava")
    assert found[-1] == "forest. lava lava lava trees"
    assert not any(query.startswith("volcano") for query in found)


def test_a_label_of_a_train_image_is_predicted_by_its_word(predicted) -> None:
    assert predicted("train", "volcano", "lava lava lava lava")[-1] == "volcano. lava lava lava trees"


def test_words_of_test_captions_teach_nothing_about_train_labels(predicted) -> None:
    """Test images of class pond say `trees`, which only forests say in training."""
    found = predicted("test", "pond", "dense green trees trees trees")
    assert found == ["forest. dense green trees trees trees", "forest. lava lava lava trees"]
