"""AMFMN: an asymmetric multimodal feature matching network (Yuan et al. 2021, arXiv 2204.09868)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.memory import Memory, PairIds
from cmer.losses.triplet import hinges
from cmer.methods.amfmn.options import AmfmnOptions
from cmer.methods.base import Context, ParameterGroup, StepInfo
from cmer.methods.items import Items
from cmer.methods.layers.bert import PRETRAINED_RATE, SentenceBert, WordPieces
from cmer.methods.layers.cnn_gru import CnnGru
from cmer.methods.layers.multiscale import MultiscaleAttention
from cmer.methods.layers.words import SENTENCE_DIM, SentenceEncoder
from cmer.registry import METHODS

SMALLEST = 1e-12
"""Least squared norm of a gated text: where ReLU leaves nothing of a text, its cosine is zero."""


@METHODS.register("amfmn")
class Amfmn(CnnGru):
    """S_ij = cos(v_i, g_i ⊙ t_j) with g_i = sigmoid(W_c v_i + b_c): an image gates every text before the two compare.

    v is `MultiscaleAttention` over a ResNet-18, t the `SentenceEncoder`. As the gate acts on single components, the
    cosines of all pairs are two matrix products, (v ⊙ g) tᵀ and g² (t²)ᵀ, and no gated text is ever stored. The loss
    is the sum over the batch of the hinges against all negatives, in both directions, with margin 0.2; the paper also
    has a margin that varies with the similarity of captions, which is not built.

    With the published vocabulary of 1,349 words it has the printed 36.70 M parameters: 36,696,228. 1,037,800 of them
    are the classifier of the ResNet and a fusion gate, which the release declares and does not use; `unused_parts`
    holds them. Schedule and optimiser are those of this project's loop; pairs with equal texts are no negatives.
    With `text_model: minilm`, t is the `SentenceBert`.
    """

    options: AmfmnOptions
    pairs_per_block = 2**15

    def __init__(self, options: AmfmnOptions, context: Context) -> None:
        super().__init__(options, context)
        self.image = MultiscaleAttention(self.cnn.channels[1:], options.image_size, SENTENCE_DIM)
        self.pieces = WordPieces() if options.text_model == "minilm" else None
        self.text = (
            SentenceBert()
            if self.pieces
            else SentenceEncoder(self.vocabulary.size, options.word_width, options.gru_width)
        )
        self.gate = nn.Linear(SENTENCE_DIM, SENTENCE_DIM)
        if options.unused_parts:
            parts = {"classifier": self.cnn.classifier(), "fusion": nn.Linear(2 * SENTENCE_DIM, SENTENCE_DIM)}
            self.unused = nn.ModuleDict(parts)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Method`: numbers of words, or word pieces."""
        return self.pieces.tokenize(texts) if self.pieces else super().tokenize(texts)

    def encode_images(self, batch: Features | Tensor) -> Items:
        """The embedding v and the gate g, [B, 512] each."""
        assert isinstance(batch, Tensor)
        embedding = self.image(self.cnn(batch)[1:])
        return {"embedding": embedding, "gate": self.gate(embedding).sigmoid()}

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """The text t, [B, 512], before any gate."""
        assert isinstance(batch, Tokens)
        encoded: Tensor = self.text(batch)
        return encoded

    def score(self, images: Items, texts: Items) -> Tensor:
        """Cosines [n, m] of n images and the m texts that each of them gates."""
        v, gate = nn.functional.normalize(images["embedding"], dim=1), images["gate"]
        squares = (gate.square() @ texts.square().T).clamp(min=SMALLEST)
        return torch.as_tensor((v * gate) @ texts.T / squares.sqrt())

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """The sum of the hinges, as published; see the class."""
        return {"triplet": hinges(self.score(images, texts), batch.positives()).sum()}

    def parameter_groups(self) -> list[ParameterGroup]:
        """See `Method`: MiniLM trains at a tenth of the rate."""
        return [ParameterGroup("text.bert.*", rate=PRETRAINED_RATE), ParameterGroup("*")]
