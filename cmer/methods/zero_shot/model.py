"""Zero-shot: the frozen backbone without training, on towers that share a space."""

from __future__ import annotations

from torch import Tensor

from cmer.backbones.base import Features, Tokens
from cmer.errors import UserError
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, StepInfo
from cmer.methods.layers.heads import unit
from cmer.methods.zero_shot.options import ZeroShotOptions
from cmer.registry import METHODS


@METHODS.register("zero_shot")
class ZeroShot(Method):
    """Cosine similarity of the frozen embeddings; nothing is trained.

    Raises:
        UserError: the towers were trained separately, so their dot product is meaningless.
    """

    def __init__(self, options: ZeroShotOptions, context: Context) -> None:
        super().__init__(options, context)
        if not context.backbone_shapes().aligned:
            raise UserError("zero_shot needs a backbone whose towers share a space; these were trained separately")

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] from frozen features."""
        assert isinstance(batch, Features)
        return unit(batch.pooled)

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] from frozen features."""
        assert isinstance(batch, Features)
        return unit(batch.pooled)

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """No losses: there is nothing to train."""
        return {}
