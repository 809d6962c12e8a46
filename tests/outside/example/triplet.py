"""A loss: the hardest negative of the batch in both directions."""

import torch

from cmer.registry import LOSSES

MARGIN = 0.2


@LOSSES.register("triplet")
def triplet(images, texts, scale, positives=None):
    scores = images @ texts.T
    own = scores.diagonal()
    mask = torch.eye(len(scores), dtype=torch.bool) if positives is None else positives
    others = scores.masked_fill(mask, -1.0)
    return sum((MARGIN - own + others.amax(dim=way)).clamp(min=0).mean() for way in (0, 1)) / 2
