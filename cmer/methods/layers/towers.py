"""What methods share that run both towers of the backbone in training, gradients passing through them."""

from __future__ import annotations

from torch import Tensor

from cmer.backbones.base import Backbone, Features, Shapes, Tokens
from cmer.config import FeatureOptions, MethodOptions
from cmer.losses.contrastive import contrastive
from cmer.losses.memory import Memory, Meta
from cmer.methods.base import Method, same_text
from cmer.methods.layers.heads import Heads


class TowerMethod(Method):
    """Both towers, adapted from within by a subclass, and the contrastive loss.

    The towers come frozen and stay in eval mode (BatchNorm keeps its statistics); a subclass adds what trains.
    """

    reads = "pixels"
    text_reads = "tokens"
    backbone: Backbone

    def __init__(
        self, shapes: Shapes, options: MethodOptions, features: FeatureOptions, backbone: Backbone | None = None
    ) -> None:
        super().__init__(shapes, options, features, backbone)
        self.options = options
        self.heads = Heads(shapes, options.projection)

    @classmethod
    def needs_backbone(cls, options: MethodOptions) -> bool:
        """Always."""
        return True

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] of pixels."""
        assert isinstance(batch, Tensor)
        return self.heads.images(self.backbone.encode_images(batch).pooled)

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] of tokens."""
        assert isinstance(batch, Tokens)
        return self.heads.texts(self.backbone.encode_texts(batch).pooled)

    def losses(self, images: Tensor, texts: Tensor, meta: Meta, memory: Memory | None) -> dict[str, Tensor]:
        """The contrastive loss alone."""
        same = same_text(meta) if self.options.soft_multi_positive else None
        return {"batch": contrastive(images, texts, self.heads.scale(), same)}
