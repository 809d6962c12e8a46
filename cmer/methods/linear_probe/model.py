"""Linear probe: one linear map per tower on the frozen embeddings (PE-RSITR's benchmark)."""

from __future__ import annotations

from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.methods.base import Context
from cmer.methods.items import Items
from cmer.methods.layers.banked import BankedMethod
from cmer.methods.layers.heads import unit
from cmer.methods.linear_probe.options import LinearProbeOptions
from cmer.registry import METHODS


@METHODS.register("linear_probe")
class LinearProbe(BankedMethod):
    """v = normalise(W_v x + b_v), s = normalise(W_s y + b_s); 525,312 parameters on ViT-B-32.

    On an aligned backbone, W is initialised to the identity. On towers without a shared space, the trained projections
    are the probe, and nothing else is added.
    """

    def __init__(self, options: LinearProbeOptions, context: Context) -> None:
        super().__init__(options, context)
        aligned = context.backbone_shapes().aligned
        self.image: nn.Module = _identity(self.heads.dim) if aligned else nn.Identity()
        self.text: nn.Module = _identity(self.heads.dim) if aligned else nn.Identity()

    def encode_images(self, batch: Features | Tensor) -> Items:
        """Unit embeddings [B, e] from frozen features."""
        return self.image_items(self.image_outputs(batch))

    def encode_texts(self, batch: Features | Tokens) -> Items:
        """Unit embeddings [B, e] from frozen features."""
        return self.text_items(self.text_outputs(batch))

    def image_outputs(self, batch: Features | Tensor) -> Items:
        """See `Method`: the frozen embeddings."""
        assert isinstance(batch, Features)
        return batch.pooled

    def text_outputs(self, batch: Features | Tokens) -> Items:
        """See `Method`: the frozen embeddings."""
        assert isinstance(batch, Features)
        return batch.pooled

    def image_items(self, outputs: Items) -> Items:
        """See `Method`: unit embeddings."""
        return unit(self.image(self.heads.images(outputs)))

    def text_items(self, outputs: Items) -> Items:
        """See `Method`: unit embeddings."""
        return unit(self.text(self.heads.texts(outputs)))


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
