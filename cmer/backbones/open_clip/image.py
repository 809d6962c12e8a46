"""The image towers of open_clip's models: its own ViTs, and timm's ViTs and FastViTs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.fastvit import AttentionBlock, FastVit, RepMixerBlock
from timm.models.vision_transformer import Block
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import Tensor, cat, nn

from cmer.backbones.base import BlockSpec, Features, Site
from cmer.errors import UserError

PLACE = "model.visual"
"""Name of every image tower within the backbone."""

Sublayer = tuple[Literal["attention", "mlp"], str, str]
"""Part, entry and exit of a sub-layer within its block."""
TRANSFORMER: list[Sublayer] = [("attention", "norm1", "drop_path1"), ("mlp", "norm2", "drop_path2")]
SUBLAYERS: dict[type[nn.Module], list[Sublayer]] = {
    Block: TRANSFORMER,
    EvaBlock: TRANSFORMER,
    RepMixerBlock: [("mlp", "mlp", "drop_path")],
    AttentionBlock: [("attention", "norm", "drop_path1"), ("mlp", "mlp", "drop_path2")],
}
"""The residual blocks of timm that are known."""
IN_PROJECTION = "attn"
"""Fused in-projection within a block of open_clip, named by its attention: see `SelfAttention`."""
TIMM_IN_PROJECTIONS = {"qkv", "q_proj", "k_proj", "v_proj"}
"""Names of the in-projections within timm's attentions: one fused or three separate maps."""


class ImageTower(ABC):
    """What the backbone needs to know of an image tower.

    Attributes:
        blocks: shapes of the block outputs.
        linears: names of the linear maps within the blocks.
        in_projections: those of them that compute queries, keys or values.
        sites: sub-layers of the blocks.
        input: name of the module whose output is the input embeddings.
        map: name of the module whose output is the last map of patches that the pooled embedding is made of.
    """

    blocks: list[BlockSpec]
    linears: list[str]
    in_projections: list[str]
    sites: list[Site]
    input: str
    map: str

    @abstractmethod
    def encode(self, pixels: Tensor, blocks: Sequence[int]) -> Features:
        """Normalised pixels [B, 3, H, W] → pooled embeddings and the asked-for block outputs."""


def image_tower(visual: nn.Module) -> ImageTower:
    """The tower behind one interface.

    Raises:
        UserError: it is neither a ViT nor a FastViT.
    """
    if isinstance(visual, VisionTransformer) and plain(visual.transformer):
        return OpenClipVit(visual)
    if isinstance(visual, TimmModel) and _known(visual.trunk):
        return TimmTower(visual)
    trunk = visual.trunk if isinstance(visual, TimmModel) else visual
    raise UserError(
        f"only open_clip models with a ViT or FastViT as image tower can serve as backbone, not {type(trunk).__name__}"
    )


def plain(transformer: Any) -> bool:
    """Whether an open_clip transformer has the blocks of CLIP alone."""
    return all(type(block) is ResidualAttentionBlock for block in transformer.resblocks)


def transformer_linears(transformer: str, blocks: int) -> list[str]:
    """Linear maps of an open_clip transformer."""
    parts = (IN_PROJECTION, "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    return [f"{transformer}.resblocks.{i}.{part}" for i in range(blocks) for part in parts]


def transformer_in_projections(transformer: str, blocks: int) -> list[str]:
    """Fused in-projections of an open_clip transformer."""
    return [f"{transformer}.resblocks.{i}.{IN_PROJECTION}" for i in range(blocks)]


def transformer_sites(transformer: str, blocks: int, width: int) -> list[Site]:
    """Sub-layers of an open_clip transformer."""
    parts: list[tuple[Literal["attention", "mlp"], str]] = [("attention", "1"), ("mlp", "2")]
    names = [(i, part, f"{transformer}.resblocks.{i}", n) for i in range(blocks) for part, n in parts]
    return [Site(i, part, f"{block}.ln_{n}", f"{block}.ls_{n}", width) for i, part, block, n in names]


class OpenClipVit(ImageTower):
    """open_clip's own ViT (CLIP, CoCa); a block output is kept as it is, class token first, without a copy."""

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        layers, width = len(visual.transformer.resblocks), visual.transformer.width
        visual.output_tokens = False  # CoCa's, for its decoder
        self.blocks = [BlockSpec(grid=visual.grid_size[0], width=width, has_cls=True)] * layers
        self.linears = transformer_linears(f"{PLACE}.transformer", layers)
        self.in_projections = transformer_in_projections(f"{PLACE}.transformer", layers)
        self.sites = transformer_sites(f"{PLACE}.transformer", layers, width)
        self.input = f"{PLACE}.patch_dropout"
        self.map = f"{PLACE}.transformer.resblocks.{max(layers - 2, 0)}"

    def encode(self, pixels: Tensor, blocks: Sequence[int]) -> Features:
        """See `ImageTower`."""
        kept: dict[int, Tensor] = {}
        with ExitStack() as hooks:
            for index in blocks:
                hook = self.visual.transformer.resblocks[index].register_forward_hook(partial(_keep, kept, index))
                hooks.callback(hook.remove)
            pooled = self.visual(pixels)
        return Features(pooled, kept)


def _keep(kept: dict[int, Tensor], index: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    kept[index] = output


class TimmTower(ImageTower):
    """A ViT or FastViT of timm (SigLIP, PE, MobileCLIP).

    A ViT's blocks are its residual blocks, with a class token where it has one; a FastViT's are its stages, each with
    a grid and width of its own, without class token. A FastViT's linear maps include its 1x1 convolutions.
    """

    def __init__(self, visual: Any) -> None:
        self.visual, trunk = visual, visual.trunk
        self.convolutional = isinstance(trunk, FastVit)
        self.has_cls = not self.convolutional and trunk.num_prefix_tokens > 0
        side = visual.image_size[0]
        self.blocks = [
            BlockSpec(grid=side // info["reduction"], width=info["num_chs"], has_cls=self.has_cls)
            for info in trunk.feature_info
        ]
        inside = "" if self.convolutional else "blocks."
        self.linears = [
            f"{PLACE}.trunk.{name}"
            for name, module in trunk.named_modules()
            if name.startswith(inside) and not name.startswith("head.") and _is_linear(module)
        ]
        self.in_projections = [name for name in self.linears if name.rpartition(".")[2] in TIMM_IN_PROJECTIONS]
        self.sites = _sites(trunk, self.convolutional)
        self.input = f"{PLACE}.trunk.{'stem' if self.convolutional else 'pos_drop'}"
        last = f"stages.{len(trunk.stages) - 1}" if self.convolutional else f"blocks.{max(len(trunk.blocks) - 2, 0)}"
        self.map = f"{PLACE}.trunk.{last}"

    def encode(self, pixels: Tensor, blocks: Sequence[int]) -> Features:
        """See `ImageTower`."""
        if not blocks:
            return Features(self.visual(pixels))
        form = "NCHW" if self.convolutional else "NLC"
        extra = {"output_extra_tokens": True} if self.has_cls else {}
        out = self.visual.forward_intermediates(pixels, indices=sorted(blocks), output_fmt=form, **extra)
        kept = out["image_intermediates"]
        if self.convolutional:
            kept = [x.flatten(2).transpose(1, 2) for x in kept]
        if self.has_cls:
            first = [prefix[:, :1] for prefix in out["image_intermediates_prefix"]]  # registers may follow it
            kept = [cat(parts, dim=1) for parts in zip(first, kept, strict=True)]
        return Features(out["image_features"], dict(zip(sorted(blocks), kept, strict=True)))


def _known(trunk: nn.Module) -> bool:
    """Whether all residual blocks are known ones; EVA's own attention never calls its query-key-value map."""
    if not isinstance(trunk, TimmVit | Eva | FastVit):
        return False
    stages: Any = trunk.stages if isinstance(trunk, FastVit) else [trunk]
    blocks = [block for stage in stages for block in stage.blocks]
    return all(type(b) in SUBLAYERS and not isinstance(getattr(b, "attn", None), EvaAttention) for b in blocks)


def _is_linear(module: nn.Module) -> bool:
    pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return pointwise or isinstance(module, nn.Linear)


def _sites(trunk: nn.Module, channels_first: bool) -> list[Site]:
    """Sub-layers of all residual blocks, which are numbered through a FastViT's stages."""
    blocks: list[tuple[str, Any]] = [(name, m) for name, m in trunk.named_modules() if type(m) in SUBLAYERS]
    return [
        Site(
            i,
            part,
            f"{PLACE}.trunk.{name}.{entry}",
            f"{PLACE}.trunk.{name}.{end}",
            block.mlp.fc1.weight.shape[1],
            channels_first,
        )
        for i, (name, block) in enumerate(blocks)
        for part, entry, end in SUBLAYERS[type(block)]
    ]
