"""TRSLLaVA (arXiv 2512.10596): an image is found by texts that a captioner wrote about it; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cmer.backbones.base import Features, Tokens
from cmer.data.bm25 import BM25
from cmer.features.device import device
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, StepInfo
from cmer.methods.items import Items
from cmer.methods.layers.heads import unit
from cmer.methods.trsllava.options import TrsllavaOptions
from cmer.registry import METHODS

TEXTS_PER_BATCH = 128


@METHODS.register("trsllava")
class Trsllava(Method):
    """score(image, query) = max or mean over the K texts of the image of s(text, query).

    s is the cosine of the frozen text tower's embeddings, or BM25 with document frequencies from the distinct texts of
    the gallery, never from queries.
    The published system has a vision-language model write structured captions at several granularities, and embeds
    captions and query with a text encoder. Its prompts, number of texts and encoder are not public: those here, both
    reductions, and BM25 are chosen.
    """

    options: TrsllavaOptions
    pairs_per_block = 2**15

    def __init__(self, options: TrsllavaOptions, context: Context) -> None:
        super().__init__(options, context)
        self.texts = context.gallery
        self.lexical = BM25(context.gallery) if options.encoder == "bm25" else None

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """The text tower's tokens; for BM25 the number of each known word, as often as it occurs."""
        if self.lexical is None:
            return super().tokenize(texts)
        rows = [torch.from_numpy(np.repeat(row.indices, row.data)).long() for row in self.lexical.counts(texts)]
        mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return Tokens(pad_sequence(rows, batch_first=True), pad_sequence(mask, batch_first=True))

    def encode_images(self, batch: Features | Tensor) -> Items:
        """The texts of each image as vectors [B, K, e], and which of them it has, [B, K]; from their numbers."""
        assert isinstance(batch, Tensor)
        return {"texts": self.gallery.to(batch.device)[batch.clamp(min=0)], "mask": batch >= 0}

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] of the frozen text tower; for BM25 counts of the gallery's words [B, V]."""
        assert isinstance(batch, Tokens)
        if self.lexical is not None:
            counts = torch.zeros(len(batch.ids), len(self.lexical.idf), device=batch.ids.device)
            return counts.scatter_add_(1, batch.ids, batch.mask.float())
        assert self.backbone is not None
        return unit(self.backbone.encode_texts(batch).pooled)

    @cached_property
    def gallery(self) -> Tensor:
        """The vector of every text, each encoded once, so that equal texts of several images tie exactly."""
        if self.lexical is not None:
            return torch.from_numpy(self.lexical.documents.toarray()).float()
        batches = [self.texts[start : start + TEXTS_PER_BATCH] for start in range(0, len(self.texts), TEXTS_PER_BATCH)]
        return torch.cat([self.encode_texts(self.tokenize(batch).to(device())).float() for batch in batches])

    def score(self, images: Items, texts: Items) -> Tensor:
        """Best or mean score [n, m] over the texts of each image.

        It is accumulated in float64 and rounded to float32, so that equal vectors have equal scores.
        """
        each = torch.einsum("nke,me->nkm", images["texts"].double(), texts.double()).float()
        mask = images["mask"].unsqueeze(-1)
        if self.options.reduce == "max":
            return each.masked_fill(~mask, float("-inf")).amax(dim=1)
        return torch.as_tensor((each * mask).sum(dim=1) / mask.sum(dim=1))

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """No losses: there is nothing to train."""
        return {}
