"""CLIP-lora: low-rank updates of every linear map of both towers (Hu et al. 2022; a baseline of the CMER paper)."""

from __future__ import annotations

from cmer.methods.base import Context
from cmer.methods.clip_lora.options import ClipLoraOptions
from cmer.methods.layers.lora import add_lora
from cmer.methods.layers.towers import TowerMethod
from cmer.registry import METHODS


@METHODS.register("clip_lora")
class ClipLora(TowerMethod):
    """W + B A of rank 16 on each linear map, with B initialised to zero.

    This has 3,932,160 parameters on ViT-B and 8,650,752 on ViT-L-14. The paper prints 3.93 and 8.65 M, but neither the
    adapted maps nor alpha and dropout. Rank 16 on all maps, with the fused query-key-value map as one, gives both
    counts; alpha 16 and no dropout are this project's choice.
    """

    def __init__(self, options: ClipLoraOptions, context: Context) -> None:
        super().__init__(options, context)
        points = self.backbone.attachment_points()
        add_lora(self.backbone, points.image_linears + points.text_linears, options.lora_rank)
