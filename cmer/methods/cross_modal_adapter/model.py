"""Cross-Modal Adapter: adapters whose up-projection is partly shared between both towers (Jiang et al. 2022)."""

from __future__ import annotations

from torch import nn

from cmer.methods.base import Context
from cmer.methods.cross_modal_adapter.options import CrossModalAdapterOptions
from cmer.methods.layers.adapters import SharedAdapter, attach_serial
from cmer.methods.layers.towers import TowerMethod
from cmer.registry import METHODS

SHARED = 16
"""Channels of the up-projection that both towers share."""


@METHODS.register("cross_modal_adapter")
class CrossModalAdapter(TowerMethod):
    """y + concat(W_own GELU(W_down y), W_shared GELU(W_down y)) on the output y of every sub-layer.

    Image block l and text block l share one tensor W_shared. Preset `official` is the released model (bottleneck 8, a
    separate adapter at every site: 519,168 parameters on ViT-B-32). Preset `paper_count` (bottleneck 64, one pair of
    adapters for all blocks: 164,208) is one of several forms with the printed 0.16 M; if a tower's blocks differ in
    width, it has one adapter per width.
    """

    def __init__(self, options: CrossModalAdapterOptions, context: Context) -> None:
        super().__init__(options, context)
        reuse = options.preset == "paper_count"
        bottleneck = 64 if reuse else 8
        shared: dict[str, nn.Linear] = {}
        self.adapters = nn.ModuleDict()
        points = self.backbone.attachment_points()
        for tower, sites in (("image", points.image_sites), ("text", points.text_sites)):
            for site in sites:
                place = "all" if reuse else f"{site.part}_{site.block}"
                name = f"{tower}_{site.width if reuse else place}"
                if name not in self.adapters:
                    common = shared.setdefault(place, nn.Linear(bottleneck, SHARED))
                    self.adapters[name] = SharedAdapter(site.width, common, nn.GELU())
                attach_serial(self.backbone, site, self.adapters[name])
        for parameter in self.adapters.parameters():
            if parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=0.01)
            else:
                nn.init.zeros_(parameter)
