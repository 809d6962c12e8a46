"""A two-block random CLIP for tests: real code paths, no weights to fetch, milliseconds a batch."""

from __future__ import annotations

import open_clip
import torch

from cmer.backbones.open_clip.model import OpenClip
from cmer.backbones.tiny.options import TinyOptions
from cmer.registry import BACKBONES


@BACKBONES.register("tiny")
class Tiny(OpenClip):
    """Image tower 64 wide on a 4x4 grid of 32 px, text tower 48 wide, two blocks each, shared space of 32."""

    def __init__(self, options: TinyOptions) -> None:
        super(OpenClip, self).__init__()
        torch.manual_seed(options.seed)
        model = open_clip.CLIP(
            embed_dim=32,
            vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
            text_cfg={"width": 48, "heads": 4, "layers": 2},
        )
        self._adopt(model, open_clip.SimpleTokenizer())
