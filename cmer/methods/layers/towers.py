"""What methods share that run both towers of the backbone in training, gradients passing through them."""

from __future__ import annotations

from torch import Tensor

from cmer.backbones.base import Backbone, Features, Tokens
from cmer.methods.layers.embedding import EmbeddingMethod


class TowerMethod(EmbeddingMethod):
    """Both towers, adapted from within by a subclass.

    The towers come frozen and stay in eval mode (BatchNorm keeps its statistics); a subclass adds what trains.
    """

    backbone: Backbone

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] of pixels."""
        assert isinstance(batch, Tensor)
        return self.heads.images(self.backbone.encode_images(batch).pooled)

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] of tokens."""
        assert isinstance(batch, Tokens)
        return self.heads.texts(self.backbone.encode_texts(batch).pooled)
