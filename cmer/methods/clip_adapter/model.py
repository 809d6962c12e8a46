"""CLIP-adapter: bottleneck adapters within the blocks of both towers (a baseline of the CMER paper)."""

from __future__ import annotations

from torch import nn

from cmer.methods.base import Context
from cmer.methods.clip_adapter.options import ClipAdapterOptions
from cmer.methods.layers.adapters import Adapter, attach_serial
from cmer.methods.layers.towers import TowerMethod
from cmer.registry import METHODS

WIDTH = 64
IMAGE_WIDTH, TEXT_WIDTH = 105, 90
"""The only pair of bottleneck widths that gives the printed counts with one adapter per block and no biases."""


@METHODS.register("clip_adapter")
class ClipAdapter(TowerMethod):
    """y + W_up GELU(W_down y) on the output y of sub-layers, with W_up initialised to zero (Houlsby et al. 2019).

    The paper states no configuration. Its memory and speed show that the adapters are inside the towers; its counts,
    3.04 M on ViT-B and 6.82 M on ViT-L-14, do not fit any common bottleneck width. Preset `paper_count` has these
    counts to the printed precision (3,041,280 and 6,819,840); `houlsby64` is the common form.
    """

    def __init__(self, options: ClipAdapterOptions, context: Context) -> None:
        super().__init__(options, context)
        self.adapters = nn.ModuleList()
        everyday = options.preset == "houlsby64"
        points = self.backbone.attachment_points()
        for sites, width in ((points.image_sites, IMAGE_WIDTH), (points.text_sites, TEXT_WIDTH)):
            for site in sites:
                if everyday or site.part == "mlp":
                    adapter = Adapter(site.width, WIDTH if everyday else width, bias=everyday)
                    self.adapters.append(adapter)
                    attach_serial(self.backbone, site, adapter)
