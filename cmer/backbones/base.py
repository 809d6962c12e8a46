"""The interface of a frozen two-tower encoder, whatever its architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from PIL import Image
from pydantic import BaseModel
from torch import Tensor, nn


class BlockSpec(BaseModel, frozen=True):
    """Shape of one block's output, [tokens, width] an item.

    Attributes:
        grid: side of the square of patches; 0 for a text block, whose tokens vary.
        width: channels.
        has_cls: whether a class token stands before the patches.
    """

    grid: int
    width: int
    has_cls: bool

    @property
    def tokens(self) -> int:
        """Tokens of an image block."""
        return self.grid**2 + self.has_cls


class Shapes(BaseModel, frozen=True):
    """What a method needs to know of a backbone to be built without it.

    Attributes:
        image_dim: width of the pooled image embedding.
        text_dim: width of the pooled text embedding.
        aligned: whether the two share one space, so that a dot product means something untrained.
        logit_scale: 1 / temperature that came with the weights (100 for CLIP).
        logit_bias: that came with the weights of a sigmoid loss; None for others.
        blocks: image blocks, in order.
        text_blocks: text blocks, in order.
    """

    image_dim: int
    text_dim: int
    aligned: bool
    logit_scale: float
    logit_bias: float | None = None
    blocks: list[BlockSpec]
    text_blocks: list[BlockSpec]


@dataclass(frozen=True)
class Features:
    """Outputs of one frozen tower for a batch.

    Attributes:
        pooled: [B, dim] embedding, not normalised.
        blocks: block index → [B, tokens, width].
        mask: [B, tokens], true where a text token is real; None for images.
    """

    pooled: Tensor
    blocks: dict[int, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def to(self, device: torch.device) -> Features:
        """The same on `device`; in float32 on a CPU, whose training step does not compute in bfloat16."""
        kept = torch.float32 if device.type == "cpu" else None
        blocks = {i: block.to(device, kept, non_blocking=True) for i, block in self.blocks.items()}
        mask = None if self.mask is None else self.mask.to(device)
        return Features(self.pooled.to(device, torch.float32), blocks, mask)


@dataclass(frozen=True)
class Tokens:
    """Token ids [B, L] and their mask [B, L], true where real."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Tokens:
        """The same on `device`."""
        return Tokens(self.ids.to(device), self.mask.to(device))


class Preprocess(BaseModel, frozen=True):
    """How a backbone wants its pixels.

    Attributes:
        size: side of the square input, pixels.
        mean: per channel, of values in 0..1.
        std: per channel.
        resize: whether the shorter side becomes `size`, with a centre crop, or both sides do.
        interpolation: of the resize.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Literal["shortest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def square(self, image: Image.Image) -> Tensor:
        """The image as a square: uint8 [3, size, size]."""
        from torchvision.transforms import v2  # 1.5 s, which a training on stored features need not wait for

        sides = [self.size] if self.resize == "shortest" else [self.size, self.size]
        resized = v2.functional.resize(image.convert("RGB"), sides, v2.InterpolationMode(self.interpolation))
        return v2.functional.pil_to_tensor(v2.functional.center_crop(resized, [self.size]))  # type: ignore[no-any-return]

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] to normalised float32."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std


@dataclass(frozen=True)
class Site:
    """A sub-layer within a residual, x + sublayer(x): where adapters attach.

    Attributes:
        block: number of the block it is part of.
        part: of the block; the inverted bottleneck of a convolution block counts as an MLP.
        entry: name of the module whose input is x.
        exit: name of the module whose output is added to x.
        width: channels of both.
        channels_first: whether they are [B, width, H, W] and not [B, tokens, width].
    """

    block: int
    part: Literal["attention", "mlp"]
    entry: str
    exit: str
    width: int
    channels_first: bool = False


@dataclass(frozen=True)
class AttachmentPoints:
    """Where methods attach to a backbone, as names of modules.

    Attributes:
        image_linears: linear maps of the image tower (LoRA): linear layers, 1x1 convolutions, or attentions of class
            `SelfAttention`, which stand for their fused in-projections.
        text_linears: linear maps of the text tower.
        image_in_projections: those among `image_linears` that compute queries, keys or values.
        text_in_projections: the same of the text tower.
        image_sites: sub-layers of the image tower, in order (adapters).
        text_sites: sub-layers of the text tower, in order.
        image_input: module whose output is the image tower's input embeddings.
        text_input: the same of the text tower.
        image_map: module whose output is the last map of patches that the pooled image embedding is made of, [B, width,
            H, W] or [B, tokens, width]. Of a ViT's last block only one token may be read, so it is the block before.
    """

    image_linears: list[str]
    text_linears: list[str]
    image_in_projections: list[str]
    text_in_projections: list[str]
    image_sites: list[Site]
    text_sites: list[Site]
    image_input: str
    text_input: str
    image_map: str


class Backbone(nn.Module, ABC):
    """A frozen image tower and a frozen text tower."""

    shapes: Shapes
    preprocess: Preprocess

    @abstractmethod
    def encode_images(self, pixels: Tensor, blocks: Sequence[int] = ()) -> Features:
        """Normalised pixels [B, 3, H, W] → pooled embeddings [B, image_dim] and the asked-for block outputs."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts to tokens; a text over the tower's limit loses its tail.

        Trimmed to the batch's longest text, except where padding is part of what the tower was trained on.
        """

    @abstractmethod
    def encode_texts(self, tokens: Tokens, blocks: Sequence[int] = ()) -> Features:
        """Tokens → pooled embeddings [B, text_dim] and the asked-for block outputs."""

    @abstractmethod
    def attachment_points(self) -> AttachmentPoints:
        """Where LoRA, adapters and bias tuning attach."""

    def freeze(self) -> Backbone:
        """Switch to eval mode and turn off every gradient."""
        return self.eval().requires_grad_(False)
