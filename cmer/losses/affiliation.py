"""The affiliation loss of PIR: embeddings against the class means of the other modality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def affiliation(images: Tensor, texts: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of every embedding against the means of the other modality within each pair's scene class.

    The mean of pair i's class in the batch is the positive of its image and of its text; the means of all other pairs
    are the negatives, and a class's mean counts once per member, as in PIR's code. That code takes the softmax of the
    texts' half over the texts instead of the means; here both halves are alike. The means are not normalised.

    Args:
        images: unit embeddings [B, e].
        texts: unit embeddings [B, e]; text i matches image i.
        labels: [B] scene classes; a pair with -1 has no class and is alone in its own.
        scale: 1 / temperature.

    Returns:
        A scalar: the mean over both directions.
    """
    target = torch.arange(len(labels), device=labels.device)
    same = (labels[:, None] == labels) & (labels >= 0) | (target[:, None] == target)
    shares = same.to(images.dtype) / same.sum(dim=1, keepdim=True)
    of_images, of_texts = shares @ images, shares @ texts
    forward = F.cross_entropy(scale * images @ of_texts.T, target)
    return (forward + F.cross_entropy(scale * texts @ of_images.T, target)) / 2
