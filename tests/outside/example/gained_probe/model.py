"""The method itself."""

import torch.nn.functional as F

from cmer.methods.base import Context
from cmer.methods.linear_probe.model import LinearProbe
from cmer.registry import METHODS
from example.gained_probe.options import GainedProbeOptions


@METHODS.register("gained_probe")
class GainedProbe(LinearProbe):
    def __init__(self, options: GainedProbeOptions, context: Context) -> None:
        super().__init__(options, context)
        self.gain = options.gain

    def encode_images(self, batch):
        frozen = self.heads.images(batch.pooled)
        return F.normalize(frozen + self.gain * super().encode_images(batch), dim=-1)
