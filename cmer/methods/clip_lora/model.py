"""CLIP-lora: low-rank updates of linear maps of both towers (Hu et al. 2022; a baseline of the CMER paper)."""

from __future__ import annotations

from cmer.errors import UserError
from cmer.methods.base import Context
from cmer.methods.clip_lora.options import ClipLoraOptions
from cmer.methods.layers.lora import add_lora
from cmer.methods.layers.towers import TowerMethod
from cmer.registry import METHODS


@METHODS.register("clip_lora")
class ClipLora(TowerMethod):
    """W + B A on linear maps of both towers, with B initialised to zero.

    The paper prints 3.93 M parameters on ViT-B and 8.65 M on ViT-L-14, but neither the adapted maps nor rank, alpha and
    dropout. Five of the combinations of maps and ranks that were tried have both counts (3,932,160 and 8,650,752), so
    neither preset is forced by them. Preset `all_maps`, rank 16 on every linear map, is what peft adds with its usual
    settings. Preset `in_projections`, rank 64 on the fused maps to queries, keys and values, keeps fewer bytes for the
    backward pass, as the paper's memory suggests. Alpha equal to the rank and no dropout are chosen too.

    Raises:
        UserError: preset `in_projections` on a tower without attention.
    """

    def __init__(self, options: ClipLoraOptions, context: Context) -> None:
        super().__init__(options, context)
        points = self.backbone.attachment_points()
        towers = [points.image_linears, points.text_linears]
        if options.preset == "in_projections":
            towers = [points.image_in_projections, points.text_in_projections]
            if not all(towers):
                raise UserError("clip_lora: preset in_projections needs attention in both towers; use all_maps")
        add_lora(self.backbone, [name for names in towers for name in names], options.rank)
