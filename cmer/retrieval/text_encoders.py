"""Encoders of texts that rank captions for captions: BM25, and the text towers of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cmer.backbones.build import build
from cmer.config.backbones import BackboneOptions, named_backbone
from cmer.data.bm25 import BM25
from cmer.features.device import device
from cmer.features.inputs import online_texts
from cmer.progress import progress
from cmer.retrieval.ceiling import Encoder, Matrix
from cmer.retrieval.embed import TEXTS_PER_BATCH
from cmer.retrieval.scores import products


def text_encoder(name: str) -> Encoder:
    """The encoder for a name on the command line: `bm25`, or a backbone whose text tower gives cosines.

    Raises:
        ValueError: no backbone has this name.
        UserError: the backbone's weights cannot be loaded.
    """
    return _bm25 if name == "bm25" else TowerEncoder(named_backbone(name))


def _bm25(queries: Sequence[str], gallery: Sequence[str]) -> Matrix:
    return BM25(gallery).scores(queries)


class TowerEncoder:
    """Cosines of the embeddings of a frozen text tower; each text is encoded once.

    Args:
        options: backbone that the tower belongs to.
    """

    def __init__(self, options: BackboneOptions) -> None:
        self._texts = online_texts(build(options).to(device()), options, ())
        self._rows: dict[str, np.ndarray] = {}

    def __call__(self, queries: Sequence[str], gallery: Sequence[str]) -> Matrix:
        """Cosines [n queries, m gallery]."""
        self._encode(sorted({*queries, *gallery} - self._rows.keys(), key=lambda text: (len(text), text)))
        one, two = (np.stack([self._rows[text] for text in texts]) for texts in (queries, gallery))
        return np.concatenate([block for _, block in products(one, two)])

    def _encode(self, texts: list[str]) -> None:
        with progress("texts", len(texts)) as advance:
            for start in range(0, len(texts), TEXTS_PER_BATCH):
                batch = texts[start : start + TEXTS_PER_BATCH]
                pooled = torch.nn.functional.normalize(self._texts(batch).pooled.float(), dim=-1).cpu().numpy()
                self._rows |= dict(zip(batch, pooled, strict=True))
                advance(len(batch))
