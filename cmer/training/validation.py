"""Validation mR, on which every training selects its weights."""

from __future__ import annotations

import numpy as np
import torch

from cmer.config.runs import RunSpec
from cmer.data.pairs import Ints, Pairs
from cmer.features.inputs import Inputs
from cmer.methods.base import Method
from cmer.retrieval.embed import encode_images, encode_texts, score
from cmer.retrieval.recall import ranks, recalls
from cmer.training import distributed


def validation_images(pairs: Pairs, wanted: int | None) -> Ints:
    """All validation images, or a fixed subsample of this size."""
    images = pairs.val_images
    if wanted is None or wanted >= len(images):
        return images
    return np.sort(np.random.default_rng(0).permutation(images)[:wanted])


def validation_mr(method: Method, inputs: Inputs, pairs: Pairs, spec: RunSpec) -> float:
    """Validation mR in percent of a method, on the validation images and their plain captions.

    A method trained only on prompted captions never sees plain ones, so it is validated on prompted captions. Process 0
    alone computes it, and all processes return it.
    """
    return distributed.broadcast(_mr(method, inputs, pairs, spec) if distributed.rank() == 0 else 0.0)


@torch.no_grad()
def _mr(method: Method, inputs: Inputs, pairs: Pairs, spec: RunSpec) -> float:
    images = validation_images(pairs, spec.training.validation_images)
    captions = pairs.captions_of(images)
    source = pairs.prompts if method.prompt_share() == 1 else pairs.texts
    precision = spec.training.precision
    texts, index = encode_texts(method, inputs, [source[c] for c in captions], precision)
    items = encode_images(method, inputs, images, spec.views, precision)
    owner = np.searchsorted(images, pairs.caption_image[captions])
    return recalls(*ranks(score(method, items, texts, index), owner)).mr
