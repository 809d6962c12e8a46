"""Base class of methods with a Swin-like image tower and a BERT of their own."""

from __future__ import annotations

from collections.abc import Sequence

from cmer.backbones.base import Preprocess, Tokens
from cmer.methods.base import Context, Method
from cmer.methods.layers.bert import MAX_TOKENS, WordPieces
from cmer.methods.layers.settings import IMAGENET_MEAN, IMAGENET_STD
from cmer.methods.layers.stage_settings import StageOptions


class StageMethod(Method):
    """What such towers read; subclasses add the towers.

    Args:
        options: settings of the method.
        context: context of the run.
        limit: maximum number of word pieces of a text.
    """

    options: StageOptions

    def __init__(self, options: StageOptions, context: Context, limit: int = MAX_TOKENS) -> None:
        super().__init__(options, context)
        self.pieces = WordPieces(limit)

    @property
    def preprocess(self) -> Preprocess:
        """See `Method`: squares of the configured size, with ImageNet's mean and standard deviation."""
        return Preprocess(size=self.options.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Method`: word pieces."""
        return self.pieces.tokenize(texts)
