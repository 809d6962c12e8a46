"""Base class of systems of a CNN on pixels and a GRU over the words of the train captions."""

from __future__ import annotations

from collections.abc import Sequence

from cmer.backbones.base import Preprocess, Tokens
from cmer.methods.base import Context, Method
from cmer.methods.layers.cnn import CnnStages
from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.methods.layers.words import Vocabulary


class CnnGru(Method):
    """The CNN and the vocabulary; subclasses add what they make of the maps and of the words.

    Args:
        options: settings of the system.
        context: context of the run.
        train_cnn: whether the CNN is trained.
    """

    options: CnnGruOptions

    def __init__(self, options: CnnGruOptions, context: Context, train_cnn: bool = True) -> None:
        super().__init__(options, context)
        self.cnn = CnnStages(options.image_model, options.image_weights, options.image_size, train_cnn)
        self.vocabulary = Vocabulary(context.captions)

    @property
    def preprocess(self) -> Preprocess:
        """See `Method`: that of the CNN."""
        return self.cnn.preprocess

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Method`: numbers of words."""
        return self.vocabulary.tokenize(texts)
