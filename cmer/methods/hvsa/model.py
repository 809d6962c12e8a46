"""HVSA: hypersphere-based visual semantic alignment (Zhang et al. 2023, IEEE TGRS 61)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.memory import Memory, PairIds
from cmer.losses.triplet import hinges
from cmer.losses.uniformity import uniformity
from cmer.methods.base import Context, StepInfo
from cmer.methods.hvsa.options import HvsaOptions
from cmer.methods.layers.cnn_gru import CnnGru
from cmer.methods.layers.heads import unit
from cmer.methods.layers.words import SENTENCE_DIM, Biases, SentenceEncoder
from cmer.registry import METHODS

SLOTS = 64
"""Slots of the memory of key entities."""
DIFFICULTY = 0.5
"""β: how fast the weight of a hinge falls with its size."""


class KeyEntityAttention(nn.Module):
    """ReLU(x + BN(conv(W_1 A))), attention of all positions to a memory of 64 slots.

    A is W_0 conv'(x), a softmax over positions, divided by its sum over the slots; both convolutions are 1 x 1.

    Args:
        width: channels of x.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1, bias=False)
        self.to_slots, self.from_slots = nn.Conv1d(width, SLOTS, 1, bias=False), nn.Conv1d(SLOTS, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H, W]."""
        slots = self.to_slots(self.enter(x).flatten(2)).softmax(dim=2)
        read = self.from_slots(F.normalize(slots, p=1, dim=1)).view(x.shape)
        return F.relu(x + self.norm(self.leave(read)))


@METHODS.register("hvsa")
class Hvsa(CnnGru):
    """L = w_1 L_1 + w_2 L_2 with w = softmax(MLP([L_1, L_2])); retrieval by cosine.

    v = W mean(attention(f4)) + b, with `KeyEntityAttention` on the last map of a ResNet-18; t is the `SentenceEncoder`.
    L_1 is the mean over the batch's B² pairs of h exp(-0.5 h), summed over both directions, where h is the hinge with
    margin 0.2, and gradients flow through the weight too (as in L_queue of CMER, by the same authors). L_2 is the
    uniformity of the images. As published, w depends on the losses themselves and may shift to the smaller one;
    `weighting: equal` does not.

    The printed 35.01 M parameters fit two ways, both without word vectors and classifier: 35,012,418 are those of the
    default, in which the word vectors are fixed and the GRU has no biases; 35,011,040 are those with biases on the
    GRU's input, and without the 8,578 of the weights' MLP. The release computes L_2 on every fifth item, as its batches
    have every image five times; here it is every item, as batches have no image twice. Pairs with equal texts are no
    negatives. Schedule and optimiser are those of this project's loop.
    """

    options: HvsaOptions

    def __init__(self, options: HvsaOptions, context: Context) -> None:
        super().__init__(options, context)
        width = self.cnn.channels[-1]
        self.attention, self.image = KeyEntityAttention(width), nn.Linear(width, SENTENCE_DIM)
        biases: Biases = "input" if options.input_biases else "none"
        self.text = SentenceEncoder(self.vocabulary.size, options.word_width, options.gru_width, biases)
        self.text.gru.words.requires_grad_(options.train_words)
        if options.weighting == "learned":
            widths = [nn.Linear(i, o, bias=False) for i, o in ((2, 64), (64, 128), (128, 2))]
            self.weights = nn.Sequential(widths[0], nn.PReLU(), widths[1], nn.PReLU(), widths[2])

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, 512]."""
        assert isinstance(batch, Tensor)
        return unit(self.image(self.attention(self.cnn(batch)[-1]).mean(dim=(2, 3))))

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, 512]."""
        assert isinstance(batch, Tokens)
        return unit(self.text(batch))

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """`alignment` and `uniformity`, weighted; see the class."""
        hinge = hinges(images @ texts.T, batch.positives())
        alignment = (hinge * torch.exp(-DIFFICULTY * hinge)).sum() / len(images) ** 2
        each = torch.stack([alignment, uniformity(images)])
        if self.options.weighting == "learned":
            each = each * self.weights(each).softmax(dim=0)
        return {"alignment": each[0], "uniformity": each[1]}
