"""Interface of methods: encoders of images and texts, a score, and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from cmer.backbones.base import Backbone, Features, Preprocess, Shapes, Tokens
from cmer.config.backbones import FeatureOptions
from cmer.config.methods import MethodOptions, Scoring
from cmer.losses.bank import Bank
from cmer.losses.memory import Memory, PairIds
from cmer.methods.items import Items


@dataclass(frozen=True)
class Context:
    """Everything that a method is built from, except its options.

    Attributes:
        shapes: shapes of the backbone; None for a method with its own towers.
        features: the blocks that are stored or computed, as explicit lists.
        backbone: the backbone; None unless the method runs one of its towers.
        captions: captions of the train images, for vocabularies.
        seed: seed of the initial weights.
        gallery: distinct rich texts of the test images, for a method that reads them in place of images.
    """

    shapes: Shapes | None
    features: FeatureOptions
    backbone: Backbone | None
    captions: Sequence[str]
    seed: int
    gallery: Sequence[str] = ()

    def backbone_shapes(self) -> Shapes:
        """The shapes, for a method that has a backbone."""
        assert self.shapes is not None, "a method without own_towers has a backbone"
        return self.shapes


@dataclass(frozen=True)
class StepInfo:
    """Progress of a training, for losses that depend on it.

    Attributes:
        step: number of the optimisation step, from 0.
        total: total number of steps of the training.
    """

    step: int
    total: int


@dataclass(frozen=True)
class ParameterGroup:
    """Learning rate and weight decay of the parameters that match a pattern.

    Attributes:
        pattern: glob pattern of parameter names: "backbone.*".
        rate: factor by which the run's learning rate is multiplied.
        decay: weight decay of all parameters in the group; None: the run's weight decay, applied only to matrices and
            convolutions (not to biases, norms, attention biases or the temperature).
    """

    pattern: str
    rate: float = 1.0
    decay: float | None = None


class Method(nn.Module, ABC):
    """A retrieval system that runs a frozen backbone, reads its stored features, or has its own towers.

    Class attributes:
        pairs_per_block: number of pairs that `score` computes at once, unless it is a dot product.

    Attributes:
        image_blocks: blocks of the frozen image tower that the method reads.
        text_blocks: blocks of the frozen text tower that the method reads.
    """

    pairs_per_block: int = 4096
    image_blocks: Sequence[int] = ()
    text_blocks: Sequence[int] = ()

    def __init__(self, options: MethodOptions, context: Context) -> None:
        super().__init__()
        self.options = options
        self.backbone = context.backbone if options.runs_backbone else None

    @property
    def scoring(self) -> Scoring:
        """How `score` compares images with texts, as the options declare it."""
        return self.options.scoring

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of pixels: that of the backbone, unless the method has its own towers."""
        assert self.backbone is not None
        return self.backbone.preprocess

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise texts with the backbone's tokeniser, unless the method has its own towers."""
        assert self.backbone is not None
        return self.backbone.tokenize(texts)

    @abstractmethod
    def encode_images(self, batch: Features | Tensor) -> Items:
        """One item per image.

        Args:
            batch: frozen features, normalised pixels [B, 3, H, W], or the numbers [B, K] of the images' rich texts in
                the context's gallery, -1 where an image has fewer.
        """

    @abstractmethod
    def encode_texts(self, batch: Features | Tokens) -> Items:
        """One item per text, from frozen features or tokens."""

    def image_outputs(self, batch: Features | Tensor) -> Items:
        """The part of `encode_images` in training that treats each image alone, for batches encoded in parts.

        `image_items` makes the items of a whole batch from its outputs. A method that standardises over the batch
        after its towers divides its encoding between these two; others need not.
        """
        return self.encode_images(batch)

    def text_outputs(self, batch: Features | Tokens) -> Items:
        """The part of `encode_texts` in training that treats each text alone."""
        return self.encode_texts(batch)

    def image_items(self, outputs: Items) -> Items:
        """The rest of `encode_images`, from the outputs of a whole batch."""
        return outputs

    def text_items(self, outputs: Items) -> Items:
        """The rest of `encode_texts`, from the outputs of a whole batch."""
        return outputs

    def score(self, images: Items, texts: Items) -> Tensor:
        """Similarity [n, m] of the scored parts of n images and m texts; higher is closer."""
        return torch.as_tensor(images @ texts.T)

    def scored_part(self, items: Items) -> Items:
        """The part of encoded images or texts that `score` reads, which evaluation keeps; the losses read all of it."""
        return items

    @abstractmethod
    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """Scalars by name whose sum is minimised, for B matching pairs of items."""

    def memory(self, batch_size: int) -> Memory | None:
        """A new, empty memory of past batches; None if the method uses none."""
        return None

    def bank(self, train_images: int) -> Bank | None:
        """A new, empty bank of this many train images, in place of the memory; None if the method uses none."""
        return None

    def prompt_share(self) -> float:
        """Share of training captions that have their scene prompt."""
        return 0.0

    def parameter_groups(self) -> list[ParameterGroup]:
        """Groups of trained parameters: the first pattern that matches a name applies; unmatched names are frozen."""
        return [ParameterGroup("*")]

    def group_of(self, name: str) -> ParameterGroup | None:
        """The group of a parameter; None if it is frozen."""
        return next((group for group in self.parameter_groups() if fnmatchcase(name, group.pattern)), None)

    def train(self, mode: bool = True) -> Method:
        """Set training mode, except for frozen backbones, which stay in eval mode (dropout, BatchNorm)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, Backbone):
                module.eval()
        return self

    def trained(self) -> dict[str, Tensor]:
        """Trainable parameters and running statistics by name, which training changes and checkpoints store."""
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
