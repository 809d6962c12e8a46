"""Encode a split and score it: what evaluation, and validation during training, know of a method."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from cmer.features.inputs import Inputs
from cmer.methods.base import Method
from cmer.methods.items import Items, concatenate, count_items, select
from cmer.progress import progress

IMAGES_PER_BATCH = 128
TEXTS_PER_BATCH = 256


@torch.inference_mode()
def encode_images(method: Method, inputs: Inputs, images: np.ndarray, views: int) -> list[Items]:
    """Items of the images, once per dihedral view; the views of an embedding are averaged into one unit embedding.

    Returns:
        One tree of [n, ...] where items are embeddings, `views` of them for others.
    """
    method.eval()
    each = [_images_of_view(method, inputs, images, view) for view in range(views)]
    if method.scoring != "embedding":
        return each
    return [torch.nn.functional.normalize(torch.stack(each).mean(dim=0), dim=-1)]


def _images_of_view(method: Method, inputs: Inputs, images: np.ndarray, view: int) -> Items:
    batches = [images[start : start + IMAGES_PER_BATCH] for start in range(0, len(images), IMAGES_PER_BATCH)]
    return concatenate(
        [method.encode_images(inputs.images(batch, np.full(len(batch), view), False)) for batch in batches]
    )


@torch.inference_mode()
def encode_texts(method: Method, inputs: Inputs, texts: Sequence[str]) -> tuple[Items, np.ndarray]:
    """Items of the unique texts, each encoded once so that equal strings have equal items, and each text's row.

    Batches hold texts of similar length, so little is padded.
    """
    method.eval()
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    batches = [unique[start : start + TEXTS_PER_BATCH] for start in range(0, len(unique), TEXTS_PER_BATCH)]
    items = concatenate([method.encode_texts(inputs.texts(batch)) for batch in batches])
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
    n, m = count_items(images[0]), count_items(texts)
    total = torch.zeros(n, m)
    rows, columns = _block(method)
    starts = [(i, j) for i in range(0, n, rows) for j in range(0, m, columns)]
    costly = method.scoring != "embedding"
    with progress("Scoring blocks of pairs", len(starts) * len(images)) if costly else nullcontext() as advance:
        for view in images:
            for i, j in starts:
                block = method.score(select(view, slice(i, i + rows)), select(texts, slice(j, j + columns)))
                total[i : i + rows, j : j + columns] += block.float().cpu()
                if advance:
                    advance(1)
    return (total / len(images)).numpy()[:, index]


def _block(method: Method) -> tuple[int, int]:
    """Images and texts that are scored at once: no more pairs than the method asks for, where they cost more."""
    if method.scoring == "embedding":
        return IMAGES_PER_BATCH, TEXTS_PER_BATCH
    columns = min(TEXTS_PER_BATCH, method.pairs_per_block)
    return min(IMAGES_PER_BATCH, max(1, method.pairs_per_block // columns)), columns


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
    tensors = {"images": encoded[0].float().cpu()} if method.scoring == "embedding" else {}
    for protocol, texts in queries.items():
        items, index = encode_texts(method, inputs, texts)
        if method.scoring == "embedding":
            tensors[f"texts/{protocol}"] = items.float().cpu()
            tensors[f"index/{protocol}"] = torch.from_numpy(index)
        else:
            tensors[f"scores/{protocol}"] = torch.from_numpy(score(method, encoded, items, index))
    return tensors
