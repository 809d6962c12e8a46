"""Encoding and scoring of a split with a method, for evaluation and for validation during training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from cmer.config.base import Precision
from cmer.data.pairs import Pairs
from cmer.features.device import autocast
from cmer.features.inputs import Inputs
from cmer.methods.base import Method
from cmer.methods.items import Items, concatenate, count_items, full_precision, select
from cmer.progress import progress

IMAGES_PER_BATCH = 128
TEXTS_PER_BATCH = 256


@torch.inference_mode()
def encode_images(method: Method, inputs: Inputs, images: np.ndarray, views: int, precision: Precision) -> list[Items]:
    """Scored parts of the images in every dihedral view; embeddings are averaged over the views and normalised.

    Args:
        method: method that encodes.
        inputs: inputs of the dataset.
        images: ids of the images.
        views: number of views.
        precision: precision of the encoder; the items are float32.

    Returns:
        One tree of tensors [n, ...] if items are embeddings, otherwise one tree per view.
    """
    method.eval()
    with autocast(precision):
        each = [full_precision(_images_of_view(method, inputs, images, view)) for view in range(views)]
    if method.scoring != "embedding":
        return each
    return [torch.nn.functional.normalize(torch.stack(each).mean(dim=0), dim=-1)]


def _images_of_view(method: Method, inputs: Inputs, images: np.ndarray, view: int) -> Items:
    batches = [images[start : start + IMAGES_PER_BATCH] for start in range(0, len(images), IMAGES_PER_BATCH)]
    encoded = (method.encode_images(inputs.images(batch, np.full(len(batch), view), False)) for batch in batches)
    return concatenate([method.scored_part(items) for items in encoded])


@torch.inference_mode()
def encode_texts(
    method: Method, inputs: Inputs, texts: Sequence[str], precision: Precision
) -> tuple[Items, np.ndarray]:
    """Scored parts of the unique texts, and the row of each text in them.

    Equal strings are encoded once and share a row. Batches consist of texts of similar length to minimise padding. The
    encoder computes in `precision`; the items are float32.
    """
    method.eval()
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    batches = [unique[start : start + TEXTS_PER_BATCH] for start in range(0, len(unique), TEXTS_PER_BATCH)]
    with autocast(precision):
        encoded = (method.encode_texts(inputs.texts(batch)) for batch in batches)
        items = full_precision(concatenate([method.scored_part(items) for items in encoded]))
    rows = {text: row for row, text in enumerate(unique)}
    return items, np.array([rows[text] for text in texts])


@torch.inference_mode()
def score(method: Method, images: list[Items], texts: Items, index: np.ndarray) -> np.ndarray:
    """Similarity [n images, n texts], the mean over the images' views, computed in blocks.

    Args:
        method: method that scores a block of images against a block of texts.
        images: items from `encode_images`.
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
                total[i : i + rows, j : j + columns] += block.cpu()
                if advance:
                    advance(1)
    return (total / len(images)).numpy()[:, index]


def pair_forwards(method: Method, images: int, texts: Sequence[str], views: int) -> int:
    """Pairs that scoring these images and texts costs: every different text with every view; 0 for embeddings."""
    return 0 if method.scoring == "embedding" else images * views * len(set(texts))


def _block(method: Method) -> tuple[int, int]:
    """Numbers of images and texts to score at once; methods with costly pairs limit the number of pairs."""
    if method.scoring == "embedding":
        return IMAGES_PER_BATCH, TEXTS_PER_BATCH
    columns = min(TEXTS_PER_BATCH, method.pairs_per_block)
    return min(IMAGES_PER_BATCH, max(1, method.pairs_per_block // columns)), columns


def bank(method: Method, inputs: Inputs, pairs: Pairs, views: int, precision: Precision) -> dict[str, Tensor]:
    """Content of a bank file: what a reranker is chosen on, and embeddings of the train split.

    It has the validation images and their plain captions in the form of `embeddings`, with the row of each caption's
    image (`owner`), and for a method that embeds the train images and the different train captions.

    Args:
        method: trained method.
        inputs: inputs of the dataset.
        pairs: the dataset.
        views: number of dihedral views to average.
        precision: precision of the encoders.
    """
    captions = pairs.captions_of(pairs.val_images)
    plain = {"none": [pairs.texts[caption] for caption in captions]}
    tensors = embeddings(method, inputs, pairs.val_images, views, plain, precision)
    tensors["owner"] = torch.from_numpy(np.searchsorted(pairs.val_images, pairs.caption_image[captions]))
    if method.scoring == "embedding":
        known = [pairs.texts[caption] for caption in pairs.captions_of(pairs.train_images)]
        tensors["bank/images"] = encode_images(method, inputs, pairs.train_images, views, precision)[0].cpu()
        tensors["bank/captions"] = encode_texts(method, inputs, known, precision)[0].cpu()
    return tensors


def embeddings(
    method: Method,
    inputs: Inputs,
    images: np.ndarray,
    views: int,
    queries: dict[str, list[str]],
    precision: Precision,
) -> dict[str, Tensor]:
    """Content of an embeddings file, which `cmer.retrieval.scores.similarity` reads.

    Args:
        method: trained method.
        inputs: inputs of the test split.
        images: ids of the test images.
        views: number of dihedral views to average.
        queries: label protocol → texts of the test captions.
        precision: precision of the encoders.
    """
    encoded = encode_images(method, inputs, images, views, precision)
    tensors = {"images": encoded[0].cpu()} if method.scoring == "embedding" else {}
    for protocol, texts in queries.items():
        items, index = encode_texts(method, inputs, texts, precision)
        tensors[f"index/{protocol}"] = torch.from_numpy(index)
        if method.scoring == "embedding":
            tensors[f"texts/{protocol}"] = items.cpu()
        else:
            tensors[f"scores/{protocol}"] = torch.from_numpy(score(method, encoded, items, index))
    return tensors
