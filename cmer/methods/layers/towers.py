"""Base class of methods that run both towers of the backbone in training and back-propagate through them."""

from __future__ import annotations

from torch import Tensor

from cmer.backbones.base import Backbone, Features, Tokens
from cmer.methods.items import Items
from cmer.methods.layers.embedding import EmbeddingMethod


class TowerMethod(EmbeddingMethod):
    """Both towers, which a subclass adapts from within.

    The towers are frozen and stay in eval mode (BatchNorm keeps its statistics); subclasses add trained parameters.
    """

    backbone: Backbone

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] from pixels."""
        assert isinstance(batch, Tensor)
        return self.heads.images(self.backbone.encode_images(batch).pooled)

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] from tokens."""
        assert isinstance(batch, Tokens)
        return self.heads.texts(self.backbone.encode_texts(batch).pooled)

    def image_outputs(self, batch: Features | Tensor) -> Items:
        """See `Method`: embeddings before the head."""
        assert isinstance(batch, Tensor)
        return self.backbone.encode_images(batch).pooled

    def text_outputs(self, batch: Features | Tokens) -> Items:
        """See `Method`: embeddings before the head."""
        assert isinstance(batch, Tokens)
        return self.backbone.encode_texts(batch).pooled

    def image_items(self, outputs: Items) -> Items:
        """See `Method`: the head's unit embeddings."""
        return self.heads.images(outputs)

    def text_items(self, outputs: Items) -> Items:
        """See `Method`: the head's unit embeddings."""
        return self.heads.texts(outputs)
