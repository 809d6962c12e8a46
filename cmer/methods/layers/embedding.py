"""What methods share that give unit embeddings of a shared space."""

from __future__ import annotations

from torch import Tensor

from cmer.backbones.base import Backbone, Shapes
from cmer.config import FeatureOptions, MethodOptions
from cmer.losses.contrastive import contrastive
from cmer.losses.memory import Memory, Meta
from cmer.methods.base import Method, same_text
from cmer.methods.layers.heads import Heads


class EmbeddingMethod(Method):
    """Heads into the shared space, and the contrastive loss."""

    def __init__(
        self, shapes: Shapes, options: MethodOptions, features: FeatureOptions, backbone: Backbone | None = None
    ) -> None:
        super().__init__(shapes, options, features, backbone)
        self.options = options
        self.heads = Heads(shapes, options.projection)

    def losses(self, images: Tensor, texts: Tensor, meta: Meta, memory: Memory | None) -> dict[str, Tensor]:
        """The contrastive loss alone."""
        same = same_text(meta) if self.options.soft_multi_positive else None
        return {"batch": contrastive(images, texts, self.heads.scale(), same)}
