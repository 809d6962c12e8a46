"""The interface of what is trained: encoders of both sides, a score, and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from cmer.backbones.base import Backbone, Features, Preprocess, Shapes, Tokens
from cmer.config.backbones import FeatureOptions
from cmer.config.methods import MethodOptions
from cmer.losses.memory import Memory, PairIds
from cmer.methods.items import Items


@dataclass(frozen=True)
class Context:
    """What a method is built from besides its options.

    Attributes:
        shapes: of the backbone; None for a method with towers of its own.
        features: which blocks are stored or computed, spelled out.
        backbone: given where the method runs one of its towers.
        captions: of the images to train on, for vocabularies.
        seed: of the initial weights.
    """

    shapes: Shapes | None
    features: FeatureOptions
    backbone: Backbone | None
    captions: Sequence[str]
    seed: int

    def backbone_shapes(self) -> Shapes:
        """The shapes, for a method that stands on a backbone."""
        assert self.shapes is not None, "a method without own_towers has a backbone"
        return self.shapes


@dataclass(frozen=True)
class StepInfo:
    """Where a training stands, for losses that change with it.

    Attributes:
        step: number of the optimisation step, from 0.
        total: steps of the whole training.
    """

    step: int
    total: int


@dataclass(frozen=True)
class ParameterGroup:
    """How the parameters that match a pattern train.

    Attributes:
        pattern: of their names, as in file names: "backbone.*".
        rate: factor of the run's learning rate.
        decay: weight decay of all of them; None: the run's, on matrices and convolutions alone (no biases, norms,
            attention biases or temperature).
    """

    pattern: str
    rate: float = 1.0
    decay: float | None = None


class Method(nn.Module, ABC):
    """A retrieval system around a frozen backbone, around its stored features alone, or with towers of its own.

    Class attributes:
        scoring: `embedding` (items are unit embeddings [B, e], one per image or text), `conditioned` (one side's
            items are adapted to the other's) or `pair` (every pair is a forward pass).
        pairs_per_block: pairs that `score` computes at once, where it is no dot product.

    Attributes:
        image_blocks: blocks of the frozen image tower that it reads.
        text_blocks: blocks of the frozen text tower that it reads.
    """

    scoring: Literal["embedding", "conditioned", "pair"] = "embedding"
    pairs_per_block: int = 4096
    image_blocks: Sequence[int] = ()
    text_blocks: Sequence[int] = ()

    def __init__(self, options: MethodOptions, context: Context) -> None:
        super().__init__()
        self.options = options
        self.backbone = context.backbone if options.runs_backbone else None

    @property
    def preprocess(self) -> Preprocess:
        """How the pixels that it reads are prepared: as the backbone's, unless the method brings its own towers."""
        assert self.backbone is not None
        return self.backbone.preprocess

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts to tokens: the backbone's, unless the method brings its own towers."""
        assert self.backbone is not None
        return self.backbone.tokenize(texts)

    @abstractmethod
    def encode_images(self, batch: Features | Tensor) -> Items:
        """One item per image, of frozen features or normalised pixels [B, 3, H, W]."""

    @abstractmethod
    def encode_texts(self, batch: Features | Tokens) -> Items:
        """One item per text, of frozen features or tokens."""

    def score(self, images: Items, texts: Items) -> Tensor:
        """Similarity [n, m] of n image items and m text items; higher is closer."""
        return torch.as_tensor(images @ texts.T)

    @abstractmethod
    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised, for B matching pairs of items."""

    def memory(self, batch_size: int) -> Memory | None:
        """A new, empty memory of past batches; None where the method keeps none."""
        return None

    def prompt_share(self) -> float:
        """Share of training captions that carry their scene prompt."""
        return 0.0

    def parameter_groups(self) -> list[ParameterGroup]:
        """How parameters train: the first pattern that matches a name counts, and nothing matched is frozen."""
        return [ParameterGroup("*")]

    def group_of(self, name: str) -> ParameterGroup | None:
        """The group of a parameter; None where it is frozen."""
        return next((group for group in self.parameter_groups() if fnmatchcase(name, group.pattern)), None)

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
