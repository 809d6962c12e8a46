"""MCRN: a multi-source cross-modal retrieval network (Yuan et al. 2022, JAG 115)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.memory import Memory, PairIds
from cmer.losses.triplet import hinges
from cmer.methods.base import Context, StepInfo
from cmer.methods.items import Items
from cmer.methods.layers.cnn import CnnStages
from cmer.methods.layers.cnn_gru import CnnGru
from cmer.methods.layers.heads import unit
from cmer.methods.layers.multiscale import MultiscaleAttention
from cmer.methods.layers.words import SENTENCE_DIM, SentenceEncoder
from cmer.methods.mcrn.options import McrnOptions
from cmer.methods.mcrn.transfer import PatternTransfer
from cmer.registry import METHODS

TEMPERATURE = 0.2
"""Of the distillation between modalities."""
DROPOUT = 0.3


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all components of p log(p / q), where p and q are softmaxes of teacher and student, [B, d] each."""
    log_q, p = F.log_softmax(student / TEMPERATURE, dim=1), F.softmax(teacher / TEMPERATURE, dim=1)
    return F.kl_div(log_q, p, reduction="none").mean()


@METHODS.register("mcrn")
class Mcrn(CnnGru):
    """Codes g = transfer(tower(x)) of images and texts, with one `PatternTransfer` for both; retrieval by cosine.

    The image tower is `MultiscaleAttention` over a ResNet-18, the text tower the `SentenceEncoder`, both with dropout
    0.3 on their output. L = 0.5 L_triplet + w (MSE(g, g') + KD(g, s) + MSE(g, s)): the sum of the hinges against all
    negatives in both directions with margin 0.2; the codes g and g' of an image and of a second view, and the codes g
    and s of image and text; w = 1000.

    The release has an audio tower too, whose terms are absent here, and a pre-training of the towers, with an
    adversarial classifier of modalities, which is not built. With the published vocabulary it has the printed 52.35 M
    parameters: 52,346,599. 13,002,792 of them are in `unused`: the audio tower, the classifier of the ResNet, and the
    maps to queries and keys, which have no effect on a sequence of one token. The second view is the mirrored image,
    as published without dropout on the tower's output; the release draws another crop. Schedule and optimiser are those
    of this project's loop; pairs with equal texts are no negatives.
    """

    options: McrnOptions

    def __init__(self, options: McrnOptions, context: Context) -> None:
        super().__init__(options, context)
        self.image = MultiscaleAttention(self.cnn.channels[1:], options.image_size, SENTENCE_DIM)
        self.text = SentenceEncoder(self.vocabulary.size, options.word_width, options.gru_width)
        self.dropout, self.transfer = nn.Dropout(DROPOUT), PatternTransfer(SENTENCE_DIM)
        if options.unused_parts:
            audio = CnnStages(options.image_model, None, options.image_size)
            maps = nn.ModuleList(nn.Linear(SENTENCE_DIM, SENTENCE_DIM) for _ in range(4))  # two in each of two layers
            parts = {
                "classifier": self.cnn.classifier(),
                "audio": audio,
                "audio_out": nn.Linear(audio.channels[-1], SENTENCE_DIM),
            }
            self.unused = nn.ModuleDict({**parts, "queries_and_keys": maps})

    def encode_images(self, batch: Features | Tensor) -> Items:
        """Codes [B, 512]; in training, together with those of the mirrored images."""
        assert isinstance(batch, Tensor)
        codes = {"codes": self.transfer(self.dropout(self._tower(batch)))}
        return codes | {"mirrored": self.transfer(self._tower(batch.flip(-1)))} if self.training else codes

    def _tower(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.image(self.cnn(pixels)[1:])
        return features

    def encode_texts(self, batch: Features | Tokens) -> Items:
        """Codes [B, 512]."""
        assert isinstance(batch, Tokens)
        return {"codes": self.transfer(self.dropout(self.text(batch)))}

    def scored_part(self, items: Items) -> Tensor:
        """See `Method`: the unit codes."""
        return unit(items["codes"])

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """`triplet`, `views` between the two views of an image, and `modalities` between image and text."""
        scores = self.score(self.scored_part(images), self.scored_part(texts))
        own, weight = images["codes"], self.options.alignment
        between = distillation(own, texts["codes"]) + F.mse_loss(own, texts["codes"])
        return {
            "triplet": 0.5 * hinges(scores, batch.positives()).sum(),
            "views": weight * F.mse_loss(own, images["mirrored"]),
            "modalities": weight * between,
        }
