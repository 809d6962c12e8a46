"""CLIP-bitfit: only the biases of both towers train (Ben Zaken et al. 2022; a baseline of the CMER paper)."""

from __future__ import annotations

from cmer.methods.base import Context
from cmer.methods.clip_bitfit.options import ClipBitfitOptions
from cmer.methods.layers.towers import TowerMethod
from cmer.registry import METHODS


@METHODS.register("clip_bitfit")
class ClipBitfit(TowerMethod):
    """Train every bias, including those of the norms: 171,008 parameters on ViT-B, 374,528 on ViT-L-14.

    The printed 0.17 and 0.37 M include the norms' biases. On convolution towers, the shifts of BatchNorm train.
    """

    def __init__(self, options: ClipBitfitOptions, context: Context) -> None:
        super().__init__(options, context)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))  # the fused attention's is called in_proj_bias
