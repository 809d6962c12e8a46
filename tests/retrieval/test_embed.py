"""Encoding and scoring with a method small enough to compute by hand, in batches and blocks of any size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cmer.features.inputs import Inputs
from cmer.retrieval import embed

IMAGES = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
TEXTS = ["a pond", "two long boats", "a pond", "trees", "a car", "two long boats"]


class Small(nn.Module):
    """Items are [x] for images and [length, 1, words] for texts; a costly score is image-conditioned."""

    pairs_per_block = 6

    def __init__(self, scoring):
        super().__init__()
        self.scoring, self.batches, self.blocks = scoring, [], []

    def encode_images(self, batch):
        self.batches.append(len(batch))
        return F.normalize(batch, dim=-1)

    def encode_texts(self, batch):
        self.batches.append(len(batch))
        return batch

    def scored_part(self, items):
        return items

    def score(self, images, texts):
        self.blocks.append((len(images), len(texts)))
        return images @ texts.T if self.scoring == "embedding" else -torch.cdist(images, texts)


def vector(text):
    return torch.tensor([len(text), 1.0, len(text.split())])


def inputs():
    """View v of an image is its vector rolled by v."""

    def images(ids, views, training):
        assert not training
        return torch.stack([IMAGES[i].roll(int(view)) for i, view in zip(ids, views, strict=True)])

    return Inputs(images, lambda texts: torch.stack([vector(text) for text in texts]))


def test_an_embedding_is_the_normalised_mean_over_the_views() -> None:
    (found,) = embed.encode_images(Small("embedding"), inputs(), np.array([4, 2]), 3, "float32")
    for image, row in zip((4, 2), found, strict=True):
        mean = sum(IMAGES[image].roll(view) / IMAGES[image].norm() for view in range(3)) / 3
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_only_the_scored_part_of_items_is_kept() -> None:
    method = Small("conditioned")
    method.scored_part = lambda items: items[:, :2]
    (images,) = embed.encode_images(method, inputs(), np.array([4, 2]), 1, "float32")
    texts, _ = embed.encode_texts(method, inputs(), TEXTS, "float32")
    assert torch.allclose(images, F.normalize(IMAGES[[4, 2]], dim=-1)[:, :2]) and texts.shape == (4, 2)


def test_a_costly_method_keeps_every_view() -> None:
    found = embed.encode_images(Small("conditioned"), inputs(), np.array([4, 2]), 3, "float32")
    assert len(found) == 3
    for view, items in enumerate(found):
        assert torch.allclose(items, F.normalize(IMAGES[[4, 2]].roll(view, 1), dim=-1), atol=1e-6)


def test_equal_texts_share_a_row_and_batches_go_by_length(monkeypatch) -> None:
    monkeypatch.setattr(embed, "TEXTS_PER_BATCH", 3)
    method = Small("embedding")
    items, index = embed.encode_texts(method, inputs(), TEXTS, "float32")
    assert items[:, 0].tolist() == sorted(len(text) for text in set(TEXTS))
    assert torch.equal(items[torch.from_numpy(index)], torch.stack([vector(text) for text in TEXTS]))
    assert method.batches == [3, 1]


def test_images_are_encoded_in_batches(monkeypatch) -> None:
    monkeypatch.setattr(embed, "IMAGES_PER_BATCH", 3)
    method = Small("embedding")
    (found,) = embed.encode_images(method, inputs(), np.arange(7), 1, "float32")
    assert method.batches == [3, 3, 1] and torch.allclose(found, F.normalize(IMAGES, dim=-1))


@pytest.mark.parametrize("scoring", ["embedding", "conditioned", "pair"])
def test_scores_are_the_mean_over_views_of_the_whole_matrix(monkeypatch, scoring) -> None:
    monkeypatch.setattr(embed, "IMAGES_PER_BATCH", 3)
    monkeypatch.setattr(embed, "TEXTS_PER_BATCH", 2)
    method = Small(scoring)
    views = embed.encode_images(method, inputs(), np.arange(7), 2, "float32")
    items, index = embed.encode_texts(method, inputs(), TEXTS, "float32")
    found = embed.score(method, views, items, index)
    blocks = list(method.blocks)
    expected = sum(method.score(view, items) for view in views) / len(views)
    assert np.allclose(found, expected[:, index].numpy(), atol=1e-6) and found.shape == (7, 6)
    assert len(blocks) == len(views) * 3 * 2 and set(blocks) == {(3, 2), (1, 2)}


@pytest.mark.parametrize(("pairs", "largest"), [(6, (1, 4)), (8, (2, 4)), (3, (1, 3)), (100, (7, 4))])
def test_blocks_of_a_costly_method_have_at_most_its_pairs(monkeypatch, pairs, largest) -> None:
    monkeypatch.setattr(embed, "TEXTS_PER_BATCH", 4)
    method = Small("pair")
    method.pairs_per_block = pairs
    images = embed.encode_images(method, inputs(), np.arange(7), 1, "float32")
    embed.score(method, images, *embed.encode_texts(method, inputs(), TEXTS, "float32"))
    assert max(method.blocks) == largest
    assert sum(n * m for n, m in method.blocks) == 7 * len(set(TEXTS))


def test_a_dot_product_is_not_cut_to_the_pairs_of_costly_methods() -> None:
    method = Small("embedding")
    images = embed.encode_images(method, inputs(), np.arange(7), 1, "float32")
    embed.score(method, images, torch.ones(9, 3), np.arange(9))
    assert method.blocks == [(7, 9)]


def test_a_file_of_embeddings_has_vectors_or_scores() -> None:
    queries = {"none": TEXTS, "oracle": TEXTS[::-1]}
    vectors = embed.embeddings(Small("embedding"), inputs(), np.arange(7), 2, queries, "float32")
    assert set(vectors) == {"images", "texts/none", "index/none", "texts/oracle", "index/oracle"}
    (images,) = embed.encode_images(Small("embedding"), inputs(), np.arange(7), 2, "float32")
    assert torch.equal(vectors["images"], images)
    scores = embed.embeddings(Small("pair"), inputs(), np.arange(7), 2, queries, "float32")
    views = embed.encode_images(Small("pair"), inputs(), np.arange(7), 2, "float32")
    assert set(scores) == {"scores/none", "index/none", "scores/oracle", "index/oracle"}
    for name, texts in queries.items():
        assert torch.equal(vectors[f"texts/{name}"][vectors[f"index/{name}"]], torch.stack([vector(t) for t in texts]))
        expected = -sum(torch.cdist(view, torch.stack([vector(t) for t in texts])) for view in views) / 2
        assert torch.allclose(scores[f"scores/{name}"], expected, atol=1e-5)
