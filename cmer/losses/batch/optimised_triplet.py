"""The optimised triplet loss of CMPAGL within a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from cmer.registry import LOSSES

MARGIN = 0.2


@LOSSES.register("optimised_triplet")
def optimised_triplet(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    positives: Tensor | None = None,
    intra_class: float = 1.0,
) -> Tensor:
    """Hinges against the hardest negative of both directions, and a term that draws matching pairs together.

    With cosines s_ij, this is the mean over pairs i of [m - s_ii + max_j s_ij]₊ + [m - s_ii + max_j s_ji]₊ +
    λ (1 - s_ii), where j runs over the negatives of i. Its paper describes the intra-class term, λ (1 - s_ii), in
    words; the margin m = 0.2, λ = 1, the hardest negatives and the mean, which does not depend on the batch size, are
    chosen.

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e]; text i matches image i.
        scale: 1 / temperature, which other losses of a batch read.
        positives: [B, B], true if text j also matches image i and is no negative; None: only text i matches image i.
        intra_class: λ; 0: the plain triplet loss.

    Returns:
        A scalar.
    """
    cosines = images @ texts.T
    matching = cosines.diagonal()
    if positives is None:
        positives = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    negatives = cosines.masked_fill(positives, float("-inf"))
    hinges = [(MARGIN - matching + negatives.amax(dim=dim)).clamp(min=0) for dim in (1, 0)]
    return (hinges[0] + hinges[1] + intra_class * (1 - matching)).mean()
