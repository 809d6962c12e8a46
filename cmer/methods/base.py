"""The interface of what is trained: encoders of both sides, a score, and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from cmer.backbones.base import Backbone, Features, Shapes, Tokens
from cmer.config import FeatureOptions, MethodOptions
from cmer.losses.memory import Memory, Meta

Items = Any
"""A tree (tuple, list or dict) of tensors that share their first dimension, or one such tensor."""


class Method(nn.Module, ABC):
    """A retrieval system around a frozen backbone, or around its stored features alone.

    Class attributes:
        cost: `dual` (one embedding a side), `conditioned` (texts conditioned on images) or `pair` (every pair is
            a forward pass). A `dual` method's items are unit embeddings [B, e].
        reads: whether `encode_images` takes frozen `Features` or pixels [B, 3, H, W].
        text_reads: whether `encode_texts` takes frozen `Features` or `Tokens`.

    Args:
        shapes: of the backbone.
        options: the method's own settings.
        features: which blocks a side branch reads, spelled out.
        backbone: given where the method runs a tower itself; `needs_backbone` says whether it does.
    """

    cost: Literal["dual", "conditioned", "pair"] = "dual"
    reads: Literal["features", "pixels"] = "features"
    text_reads: Literal["features", "tokens"] = "features"
    image_blocks: Sequence[int] = ()
    text_blocks: Sequence[int] = ()

    def __init__(
        self, shapes: Shapes, options: MethodOptions, features: FeatureOptions, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone if self.needs_backbone(options) else None

    @classmethod
    def needs_backbone(cls, options: MethodOptions) -> bool:
        """Whether the method runs a tower of the backbone itself."""
        return False

    @abstractmethod
    def encode_images(self, batch: Features | Tensor) -> Items:
        """One item an image."""

    @abstractmethod
    def encode_texts(self, batch: Features | Tokens) -> Items:
        """One item a text."""

    def score(self, images: Items, texts: Items) -> Tensor:
        """Similarity [n, m] of n image items and m text items; higher is closer."""
        return torch.as_tensor(images @ texts.T)

    @abstractmethod
    def losses(self, images: Items, texts: Items, meta: Meta, memory: Memory | None) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised, for B matching pairs."""

    def memory(self, batch_size: int) -> Memory | None:
        """A new, empty memory of past batches; None where the method keeps none."""
        return None

    def prompt_share(self) -> float:
        """Share of training captions that carry their scene prompt."""
        return 0.0

    def train(self, mode: bool = True) -> Method:
        """Training mode for what is trained; a frozen backbone inside (its dropout, BatchNorm) stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, Backbone):
                module.eval()
        return self

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name, and a checkpoint holds: trainable parameters and running statistics."""
        parameters = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        statistics = {
            name: buffer
            for name, buffer in self.named_buffers()
            if name.endswith(("running_mean", "running_var")) and not name.startswith("backbone.")
        }
        return parameters | statistics

    def count(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


def same_text(meta: Meta) -> Tensor:
    """[B, B], true where pair j shares pair i's text or image: a positive that is not on the diagonal."""
    return (meta.texts[:, None] == meta.texts) | (meta.images[:, None] == meta.images)


def full_precision(items: Items) -> Items:
    """The same tree with float32 in place of bfloat16, for the losses."""
    return tree_map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, items)


def take(items: Items, index: Tensor | slice) -> Items:
    """Rows `index` of every tensor of the tree."""
    return tree_map(lambda tensor: tensor[index], items)


def join(parts: Sequence[Items]) -> Items:
    """Concatenate trees along the first dimension."""
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)
