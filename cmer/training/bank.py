"""Filling a method's bank with the embeddings of the train split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cmer.config.base import Precision
from cmer.data.sampler import Batch
from cmer.features.device import autocast
from cmer.features.inputs import Inputs
from cmer.losses.bank import Bank
from cmer.losses.memory import PairIds
from cmer.methods.base import Method
from cmer.methods.items import full_precision

PAIRS_PER_BATCH = 256


@torch.no_grad()
def fill(
    bank: Bank,
    method: Method,
    inputs: Inputs,
    precision: Precision,
    batches: Sequence[Batch],
    described: Callable[[Batch], tuple[Sequence[str], PairIds]],
) -> None:
    """Replace all entries of a bank, as the current weights embed them without dropout.

    Args:
        bank: the bank.
        method: the method, which is left in eval mode.
        inputs: inputs of the dataset.
        precision: precision of the encoders.
        batches: one pair per entry.
        described: the texts of a batch and its ids.
    """
    method.eval()
    for batch in batches:
        texts, ids = described(batch)
        with autocast(precision):
            images = method.encode_images(inputs.images(batch.images, batch.views, False))
            captions = method.encode_texts(inputs.texts(texts))
        bank.add(full_precision(images), full_precision(captions), ids)
    bank.replaced()
