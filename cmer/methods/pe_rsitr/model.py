"""PE-RSITR: one adapter for all blocks of both towers, and a hybrid loss (Yuan et al. 2023)."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.items import Items
from cmer.methods.layers.adapters import SharedAdapter, attach_parallel
from cmer.methods.layers.towers import TowerMethod
from cmer.methods.pe_rsitr.options import PeRsitrOptions
from cmer.registry import METHODS


@METHODS.register("pe_rsitr")
class PeRsitr(TowerMethod):
    """x + MLP(x) + A(x) in every block, A(x) = concat(W_own z, W_shared z), z = dropout(ReLU(W_down x)).

    One W_down and W_own per tower and one W_shared for both: 161,088 parameters on ViT-B-32. The up-projections are
    initialised to zero. If a tower's blocks differ in width, it has one W_down and W_own per width.

    The loss is L = L_inter + w (L_image + L_text): contrastive losses between the towers and, within each tower,
    between two passes, the second with dropout on the tower's input embeddings. The source does not state the weights;
    here they are 1.
    """

    def __init__(self, options: PeRsitrOptions, context: Context) -> None:
        super().__init__(options, context)
        self.intra_weight, self.input_dropout = options.intra_weight, options.input_dropout
        shared = nn.Linear(options.bottleneck, options.shared)
        self.adapters = nn.ModuleDict()
        self.points = self.backbone.attachment_points()
        for tower, sites in (("image", self.points.image_sites), ("text", self.points.text_sites)):
            for site in sites:
                if site.part == "mlp":
                    name = f"{tower}_{site.width}"
                    if name not in self.adapters:
                        self.adapters[name] = self._adapter(site.width, shared, options.dropout)
                    attach_parallel(self.backbone, site, self.adapters[name])

    @staticmethod
    def _adapter(width: int, shared: nn.Linear, dropout: float) -> SharedAdapter:
        adapter = SharedAdapter(width, shared, nn.ReLU(), dropout)
        nn.init.kaiming_uniform_(adapter.down.weight, nonlinearity="relu")
        for parameter in (adapter.down.bias, *adapter.own.parameters(), *shared.parameters()):
            nn.init.zeros_(parameter)
        return adapter

    def encode_images(self, batch: Features | Tensor) -> Items:
        """Unit embeddings [B, e]; in training, together with those of a second pass."""
        once = super().encode_images(batch)
        if not self.training:
            return once
        with self._dropped(self.points.image_input):
            return once, super().encode_images(batch)

    def encode_texts(self, batch: Features | Tokens) -> Items:
        """Unit embeddings [B, e]; in training, together with those of a second pass."""
        once = super().encode_texts(batch)
        if not self.training:
            return once
        with self._dropped(self.points.text_input):
            return once, super().encode_texts(batch)

    def image_outputs(self, batch: Features | Tensor) -> Items:
        """See `Method`: embeddings of both passes before the head."""
        once = super().image_outputs(batch)
        with self._dropped(self.points.image_input):
            return once, super().image_outputs(batch)

    def text_outputs(self, batch: Features | Tokens) -> Items:
        """See `Method`: embeddings of both passes before the head."""
        once = super().text_outputs(batch)
        with self._dropped(self.points.text_input):
            return once, super().text_outputs(batch)

    def image_items(self, outputs: Items) -> Items:
        """See `Method`: the head's unit embeddings of both passes."""
        return tuple(map(self.heads.images, outputs))

    def text_items(self, outputs: Items) -> Items:
        """See `Method`: the head's unit embeddings of both passes."""
        return tuple(map(self.heads.texts, outputs))

    def _dropped(self, module: str) -> AbstractContextManager[object]:
        return self.backbone.get_submodule(module).register_forward_hook(
            lambda _module, _args, output: F.dropout(output, self.input_dropout)
        )

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """`batch` between the towers, `images` and `texts` within them; each item is a pair of passes."""
        positives = batch.positives() if self.options.soft_multi_positive else None
        scale = self.heads.scale()
        return super().losses(images[0], texts[0], batch, memory, step) | {
            "images": self.intra_weight * contrastive(images[0], images[1], scale),
            "texts": self.intra_weight * contrastive(texts[0], texts[1], scale, positives),
        }
