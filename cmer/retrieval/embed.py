"""Encode a split and score it: what evaluation, and validation during training, know of a method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cmer.features.inputs import Inputs
from cmer.methods.base import Items, Method, join, take

IMAGES_A_BATCH = 128
TEXTS_A_BATCH = 256


@torch.inference_mode()
def encode_images(method: Method, inputs: Inputs, images: np.ndarray, views: int) -> list[Items]:
    """Items of the images, once a dihedral view; a dual method's views are averaged into one unit embedding.

    Returns:
        One tree of [n, ...] for a dual method, `views` of them for others.
    """
    method.eval()
    each = [_images_of_view(method, inputs, images, view) for view in range(views)]
    if method.cost != "dual":
        return each
    return [torch.nn.functional.normalize(torch.stack(each).mean(dim=0), dim=-1)]


def _images_of_view(method: Method, inputs: Inputs, images: np.ndarray, view: int) -> Items:
    batches = [images[start : start + IMAGES_A_BATCH] for start in range(0, len(images), IMAGES_A_BATCH)]
    return join([method.encode_images(inputs.images(batch, np.full(len(batch), view), False)) for batch in batches])


@torch.inference_mode()
def encode_texts(method: Method, inputs: Inputs, texts: Sequence[str]) -> tuple[Items, np.ndarray]:
    """Items of the unique texts, each encoded once so that equal strings have equal items, and each text's row.

    Batches hold texts of similar length, so little is padded.
    """
    method.eval()
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    batches = [unique[start : start + TEXTS_A_BATCH] for start in range(0, len(unique), TEXTS_A_BATCH)]
    items = join([method.encode_texts(inputs.texts(batch)) for batch in batches])
    rows = {text: row for row, text in enumerate(unique)}
    return items, np.array([rows[text] for text in texts])


@torch.inference_mode()
def score(method: Method, images: list[Items], texts: Items, index: np.ndarray) -> np.ndarray:
    """Similarity [n images, n texts], the mean over the images' views, computed in blocks.

    Args:
        method: scores one block of images against one of texts.
        images: from `encode_images`.
        texts: items of the unique texts.
        index: row of `texts` for each text.
    """
    n, m = _length(images[0]), _length(texts)
    total = torch.zeros(n, m)
    for view in images:
        for i in range(0, n, IMAGES_A_BATCH):
            rows = take(view, slice(i, i + IMAGES_A_BATCH))
            for j in range(0, m, TEXTS_A_BATCH):
                block = method.score(rows, take(texts, slice(j, j + TEXTS_A_BATCH)))
                total[i : i + IMAGES_A_BATCH, j : j + TEXTS_A_BATCH] += block.float().cpu()
    return (total / len(images)).numpy()[:, index]


def _length(items: Items) -> int:
    leaves, _ = torch.utils._pytree.tree_flatten(items)
    return len(leaves[0])


def embeddings(
    method: Method, inputs: Inputs, images: np.ndarray, views: int, queries: dict[str, list[str]]
) -> dict[str, Tensor]:
    """What an embeddings file holds: see `cmer.retrieval.evaluate.similarity`, which reads it.

    Args:
        method: trained.
        inputs: of the test split.
        images: test image ids.
        views: dihedral views averaged.
        queries: the captions' texts under each label protocol.
    """
    encoded = encode_images(method, inputs, images, views)
    tensors = {"images": encoded[0].float().cpu()} if method.cost == "dual" else {}
    for protocol, texts in queries.items():
        items, index = encode_texts(method, inputs, texts)
        if method.cost == "dual":
            tensors[f"texts/{protocol}"] = items.float().cpu()
            tensors[f"index/{protocol}"] = torch.from_numpy(index)
        else:
            tensors[f"scores/{protocol}"] = torch.from_numpy(score(method, encoded, items, index))
    return tensors
