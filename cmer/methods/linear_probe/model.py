"""Linear probe: one linear map per tower on the frozen embeddings (PE-RSITR's benchmark)."""

from __future__ import annotations

from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.methods.base import Context
from cmer.methods.layers.embedding import EmbeddingMethod
from cmer.methods.layers.heads import unit
from cmer.methods.linear_probe.options import LinearProbeOptions
from cmer.registry import METHODS


@METHODS.register("linear_probe")
class LinearProbe(EmbeddingMethod):
    """v = normalise(W_v x + b_v), s = normalise(W_s y + b_s); 525,312 parameters on ViT-B-32.

    On an aligned backbone, W is initialised to the identity. On towers without a shared space, the trained projections
    are the probe, and nothing else is added.
    """

    def __init__(self, options: LinearProbeOptions, context: Context) -> None:
        super().__init__(options, context)
        aligned = context.backbone_shapes().aligned
        self.image: nn.Module = _identity(self.heads.dim) if aligned else nn.Identity()
        self.text: nn.Module = _identity(self.heads.dim) if aligned else nn.Identity()

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] from frozen features."""
        assert isinstance(batch, Features)
        return unit(self.image(self.heads.images(batch.pooled)))

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] from frozen features."""
        assert isinstance(batch, Features)
        return unit(self.text(self.heads.texts(batch.pooled)))


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
