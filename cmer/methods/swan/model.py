"""SWAN: a scene-aware aggregation network (Pan et al., ICMR 2023)."""

from __future__ import annotations

from torch import Tensor

from cmer.backbones.base import Features, Tokens
from cmer.losses.memory import Memory, PairIds
from cmer.losses.triplet import hinges
from cmer.methods.base import Context, StepInfo
from cmer.methods.layers.cnn_gru import CnnGru
from cmer.methods.layers.heads import unit
from cmer.methods.layers.words import WordGru
from cmer.methods.swan.image import SwanImage
from cmer.methods.swan.options import SwanOptions
from cmer.methods.swan.text import SwanText
from cmer.registry import METHODS


@METHODS.register("swan")
class Swan(CnnGru):
    """Cosine of `SwanImage` over a frozen ResNet-50 and `SwanText` over a bidirectional GRU.

    The loss is the sum over the batch of the hinges against all negatives, in both directions, with margin 0.2. No
    parameter count is printed. The published ResNet-50 is pretrained on scenes of AID, the word vectors are GloVe's;
    here the CNN has ImageNet's weights, unless `image_weights` names a file, and the word vectors start at random.
    Batches are drawn as for every other method, not by scene. Schedule and optimiser are those of this project's loop;
    pairs with equal texts are no negatives. See `SwanText` for more deviations.
    """

    options: SwanOptions

    def __init__(self, options: SwanOptions, context: Context) -> None:
        super().__init__(options, context, options.train_cnn)
        self.image = SwanImage(self.cnn.channels, options.gru_width)
        self.gru = WordGru(
            self.vocabulary.size,
            options.word_width,
            options.gru_width,
            dropout=0.4,
            shared_mask=False,
            bidirectional=True,
            biases="both",
        )
        self.text = SwanText(options.gru_width, options.released_text)

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, gru_width]."""
        assert isinstance(batch, Tensor)
        return unit(self.image(self.cnn(batch)))

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, gru_width]."""
        assert isinstance(batch, Tokens)
        return unit(self.text(self.gru(batch), batch.mask))

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """The sum of the hinges, as published; see the class."""
        return {"triplet": hinges(images @ texts.T, batch.positives()).sum()}
