"""Base class of methods that produce unit embeddings in a shared space."""

from __future__ import annotations

from torch import Tensor

from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, StepInfo
from cmer.methods.layers.heads import Heads
from cmer.methods.layers.settings import EmbeddingOptions
from cmer.registry import LOSSES


class EmbeddingMethod(Method):
    """A method with heads into the shared space and one loss between the embeddings."""

    options: EmbeddingOptions

    def __init__(self, options: EmbeddingOptions, context: Context) -> None:
        super().__init__(options, context)
        self.heads = Heads(context.backbone_shapes(), options.projection)

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """The loss selected in the options."""
        positives = batch.positives() if self.options.soft_multi_positive else None
        return {"batch": LOSSES.get(self.options.loss)(images, texts, self.heads.scale(), positives)}
