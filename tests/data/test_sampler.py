from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from artifacts import images_table

from cmer.data.frames import write_frame
from cmer.data.pairs import Pairs
from cmer.data.sampler import Batch, epoch_batches
from cmer.data.splits import validation_ids
from cmer.errors import UserError


def make(folder: Path, splits: list[str], captions: list[int], validation: list[int] | None = None) -> Pairs:
    count = len(splits)
    names = ["pond", "airport", ""]
    images = images_table(count, label=[names[i % 3] for i in range(count)], split=splits)
    owners = [image for image, number in enumerate(captions) for _ in range(number)]
    texts = pd.DataFrame({"caption_id": range(len(owners)), "image_id": owners})
    texts["caption"] = [f"text {i}" for i in range(len(owners))]
    texts = texts.assign(label="", prompt=texts["caption"])
    write_frame(folder / "images.csv", images)
    write_frame(folder / "captions.csv", texts)
    if validation is None:
        return Pairs.read(folder, folder / "captions.csv")
    write_frame(folder / "validation.csv", pd.DataFrame({"image_id": validation}))
    return Pairs.read(folder, folder / "captions.csv", folder / "validation.csv")


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    splits = ["train"] * 40 + ["test"] * 5
    return make(tmp_path, splits, [1 + i % 5 for i in range(45)], validation=[3, 8])


def epoch(pairs: Pairs, **changed: Any) -> list[Batch]:
    settings = {"epoch": 0, "seed": 1, "batch_size": 8, "epoch_of": "pairs", "prompt_share": 0.5, "views": 4}
    return epoch_batches(pairs, **(settings | changed))


def test_validation_is_the_own_split_or_a_seeded_tenth_of_train() -> None:
    own = images_table(4, split=["val", "train", "val", "test"])
    assert validation_ids(own, own["image_id"], 1) == validation_ids(own, own["image_id"], 2) == [0, 2]
    files = [f"{i}.jpg" for i in range(4743)]
    apart = images_table(4743, file=files, split=["test"] * 452 + ["train"] * 4291)
    first, again, other = (validation_ids(apart, apart["image_id"], seed) for seed in (2022, 2022, 2023))
    assert len(first) == 430 and 4291 - len(first) == 3861
    assert first == sorted(set(first)) == again != other
    assert min(first) >= 452


def test_pairs_keep_the_splits_apart(pairs: Pairs) -> None:
    assert pairs.val_images.tolist() == [3, 8]
    assert pairs.test_images.tolist() == list(range(40, 45))
    assert set(pairs.train_images.tolist()) == set(range(40)) - {3, 8}
    assert pairs.label_names == ["airport", "pond"]
    assert pairs.labels[:4].tolist() == [1, 0, -1, 1]


def test_captions_of_go_image_by_image(pairs: Pairs) -> None:
    # image i has 1 + i % 5 captions, so image 2 starts at 1 + 2 and image 1 at 1
    assert pairs.captions_of(np.array([2, 0, 1])).tolist() == [3, 4, 5, 0, 1, 2]
    assert pairs.captions_of(np.array([], dtype=np.int64)).tolist() == []


def test_files_of_two_datasets_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "a", ["train", "test"], [2, 2])
    make(tmp_path / "b", ["train", "train", "test"], [2, 2, 2])
    with pytest.raises(UserError, match="describe different datasets"):
        Pairs.read(tmp_path / "a", tmp_path / "b/captions.csv")
    with pytest.raises(UserError, match="names test images"):
        make(tmp_path / "c", ["train", "test"], [2, 2], validation=[1])


def test_an_epoch_of_pairs_shows_every_train_pair_once(pairs: Pairs) -> None:
    shown = Counter(caption for batch in epoch(pairs) for caption in batch.captions.tolist())
    assert shown == Counter(pairs.captions_of(pairs.train_images).tolist())


def test_an_epoch_of_images_shows_every_train_image_once_with_its_own_caption(pairs: Pairs) -> None:
    batches = epoch(pairs, epoch_of="images")
    assert sorted(np.concatenate([batch.images for batch in batches])) == pairs.train_images.tolist()
    drawn = [tuple(np.concatenate([b.captions for b in epoch(pairs, epoch_of="images", epoch=e)])) for e in range(3)]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("epoch_of", ["pairs", "images"])
def test_a_batch_has_one_caption_of_an_image_and_never_one_pair(pairs: Pairs, epoch_of: str) -> None:
    for size in (2, 3, 7, 37, 100):
        for batch in epoch(pairs, epoch_of=epoch_of, batch_size=size):
            assert len(set(batch.images.tolist())) == len(batch.images)
            assert 2 <= len(batch.images) <= size + 1
            assert np.array_equal(pairs.caption_image[batch.captions], batch.images)
            assert batch.prompted.shape == batch.views.shape == batch.images.shape


def test_the_same_arguments_give_the_same_batches_and_others_do_not(pairs: Pairs) -> None:
    def key(**changed: int) -> bytes:
        return b"".join(a.tobytes() for b in epoch(pairs, **changed) for a in (b.captions, b.prompted, b.views))

    assert key() == key()
    assert len({key(), key(epoch=1), key(seed=2)}) == 3


def test_prompts_and_views_follow_their_shares(pairs: Pairs) -> None:
    def drawn(name: str, **changed: Any) -> list[Any]:
        return [x for e in range(30) for b in epoch(pairs, epoch=e, **changed) for x in getattr(b, name).tolist()]

    assert not any(drawn("prompted", prompt_share=0.0)) and all(drawn("prompted", prompt_share=1.0))
    assert abs(np.mean(drawn("prompted")) - 0.5) < 0.05
    assert set(drawn("views")) == {0, 1, 2, 3} and set(drawn("views", views=1)) == {0}


def test_few_train_images_are_the_same_for_every_run_and_touch_no_other_split(pairs: Pairs) -> None:
    few = pairs.subsample(7)
    assert len(few.train_images) == 7
    assert set(few.train_images) < set(pairs.train_images)
    assert np.array_equal(few.train_images, pairs.subsample(7).train_images)
    assert set(pairs.subsample(3).train_images) < set(few.train_images)  # more images hold the fewer ones
    assert np.array_equal(few.test_images, pairs.test_images)
    assert pairs.subsample(None) is pairs
    assert np.array_equal(pairs.subsample(1000).train_images, pairs.train_images)
