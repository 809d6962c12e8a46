"""Random draws of the losses: masked word pieces, and hard negatives for matching."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

MASK_SHARE = 0.15
"""Share of word pieces to predict."""
REPLACED = 0.8
"""Share of these that become [MASK]; half of the others become random word pieces, the other half stays."""


def mask_words(
    ids: Tensor, special: Sequence[int], mask: int, vocabulary: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mask word pieces as BERT does: 15 % are to be predicted, of which 80 % are masked and 10 % random.

    Args:
        ids: word pieces [B, L].
        special: ids that are never masked.
        mask: id of [MASK].
        vocabulary: number of word pieces.
        generator: random generator on the device of `ids`.

    Returns:
        the masked ids [B, L], and which of them are to be predicted [B, L].
    """

    def uniform() -> Tensor:
        return torch.rand(ids.shape, generator=generator, device=ids.device)

    chosen = (uniform() < MASK_SHARE) & ~torch.isin(ids, torch.tensor(special, device=ids.device))
    action = uniform()
    randoms = torch.randint(vocabulary, ids.shape, generator=generator, device=ids.device)
    masked = torch.where(chosen & (action < REPLACED), mask, ids)
    return torch.where(chosen & (action >= (1 + REPLACED) / 2), randoms, masked), chosen


def hard_negatives(logits: Tensor, positives: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw one negative of each row that has any, with probabilities proportional to exp(logits).

    Args:
        logits: [B, B].
        positives: [B, B], pairs that are never drawn.
        generator: random generator on the device of `logits`.

    Returns:
        the rows that have a negative [R], and the negative's column of each [R].
    """
    rows = (~positives).any(dim=1).nonzero().squeeze(1)
    allowed = logits[rows].masked_fill(positives[rows], float("-inf")).softmax(dim=1)
    # A negative may be too unlikely for float32; the lower limit keeps every row drawable.
    weights = allowed.clamp(min=torch.finfo(allowed.dtype).tiny).masked_fill(positives[rows], 0)
    return rows, torch.multinomial(weights, 1, generator=generator).squeeze(1)
