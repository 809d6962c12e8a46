"""Digests of the frozen weights that features were made with."""

from __future__ import annotations

import hashlib

import torch

from cmer.backbones.base import Backbone
from cmer.errors import UserError
from cmer.features.store import Manifest


def weights_digest(backbone: Backbone) -> str:
    """SHA-256 over all weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def require_weights(backbone: Backbone, manifest: Manifest) -> None:
    """Raise `UserError` if the features of a manifest were made with other weights than the backbone's."""
    if weights_digest(backbone) != manifest.weights:
        raise UserError(
            f"the features of {manifest.spec.dataset.title} were made with other weights than "
            f"{manifest.spec.backbone.printed} has now; extract them again (cmer features)"
        )
