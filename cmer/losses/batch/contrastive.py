"""The symmetric contrastive loss within a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cmer.registry import LOSSES


@LOSSES.register("contrastive")
def contrastive(images: Tensor, texts: Tensor, scale: Tensor, positives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE, L_batch of CMER (Eq. 19-21).

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e]; text i matches image i.
        scale: 1 / temperature.
        positives: [B, B], true if text j also matches image i; the target of each row is then distributed equally over
            its positives (soft labels of PIR). None: only text i matches image i.

    Returns:
        A scalar: the mean over both directions.
    """
    logits = scale * images @ texts.T
    if positives is None:
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    shares = positives.to(logits.dtype)
    forward = F.cross_entropy(logits, shares / shares.sum(dim=1, keepdim=True))
    backward = F.cross_entropy(logits.T, shares.T / shares.T.sum(dim=1, keepdim=True))
    return (forward + backward) / 2
