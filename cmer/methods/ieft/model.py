"""IEFT: interacting-enhancing feature transformer (Tang et al., IEEE TGRS 61, 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from transformers import ViltConfig, ViltModel

from cmer.backbones.base import Features, Preprocess, Tokens
from cmer.backbones.weights import reading_weights
from cmer.config.places import is_local
from cmer.errors import UserError
from cmer.io import expand
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, StepInfo
from cmer.methods.ieft.options import IeftOptions
from cmer.methods.ieft.stream import Stream
from cmer.methods.items import Items
from cmer.methods.layers.bert import WordPieces, quiet_transformers
from cmer.methods.layers.draws import step_generator
from cmer.methods.layers.pairs import score_pairs
from cmer.registry import METHODS

MAX_TOKENS = 40


@METHODS.register("ieft")
class Ieft(Method):
    """S(I, T) = w · tanh(W x_[CLS] + b) + c; L = cross-entropy of the matching text among it and 15 false ones.

    x are the states of a single stream of words and patches, see `Stream`: the first six blocks of ViLT-B/32, with an
    interaction across channels and an enhancement by gated convolutions of the patches before the second to fourth.
    What does not depend on the pair, the embeddings of words and patches, is computed once per text and image.

    Sizes, loss and learning rate follow the published code (github.com/TangXu-Group, folder IEFT). Deviations: the
    false texts come from the batch, without texts that equal the matching one or belong to the image, where that code
    draws them from all training captions; its matching loss with weight 0.5, whose head is frozen, is left out, and so
    is the head; the rank head starts at random; attention is computed for [CLS] alone in the last block, which changes
    no score. Random weights are possible.
    """

    pairs_per_block = 1024
    options: IeftOptions

    def __init__(self, options: IeftOptions, context: Context) -> None:
        super().__init__(options, context)
        self.seed, self.pieces = context.seed, WordPieces(MAX_TOKENS)
        vilt = _vilt(options)
        parts = vilt.embeddings
        self.words, self.patches, self.types = (
            parts.text_embeddings,
            parts.patch_embeddings,
            parts.token_type_embeddings,
        )
        self.cls_token, self.positions = parts.cls_token, parts.position_embeddings
        self.dropout = nn.Dropout(options.dropout)
        self.stream, self.rank = Stream(vilt, options), nn.Linear(options.width, 1)

    @property
    def preprocess(self) -> Preprocess:
        """See `Method`: squares of the configured size with values from -1 to 1."""
        return Preprocess(size=self.options.image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Method`; at most 40 word pieces."""
        return self.pieces.tokenize(texts)

    def encode_images(self, batch: Features | Tensor) -> Items:
        """Embeddings [B, 1 + N, d] of the class token and the patches."""
        assert isinstance(batch, Tensor)
        patches = self.patches(batch).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(batch), -1, -1), patches], dim=1) + self.positions
        return self.dropout(tokens) + self.types.weight[1]

    def encode_texts(self, batch: Features | Tokens) -> Items:
        """Embeddings [B, L, d] of the word pieces, and their mask."""
        assert isinstance(batch, Tokens)
        return {"states": self.words(batch.ids) + self.types.weight[0], "mask": batch.mask}

    def score(self, images: Items, texts: Items) -> Tensor:
        """See the class: a forward pass of the stream for every pair."""
        return score_pairs(self._match, images, texts)

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """See the class; the false texts depend on seed and step only."""
        positives = batch.positives()
        generator = step_generator(self.seed, step.step, positives.device)
        candidates, allowed = draw_texts(positives, self.options.false_texts, generator)
        image_rows = allowed.nonzero()[:, 0]
        found = self._match(images, texts, image_rows, candidates[allowed])
        logits = torch.full(allowed.shape, float("-inf"), device=found.device).masked_scatter(allowed, found)
        return {"ranking": F.cross_entropy(logits, torch.zeros_like(candidates[:, 0]))}

    def _match(self, images: Items, texts: Items, image_rows: Tensor, text_rows: Tensor) -> Tensor:
        """Scores [P] of pairs."""
        pooled = self.stream(texts["states"][text_rows], texts["mask"][text_rows], images[image_rows])
        scores: Tensor = self.rank(pooled).squeeze(-1)
        return scores


def draw_texts(positives: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """The matching text of each image and up to `count` of its negatives, drawn uniformly without replacement.

    Args:
        positives: [B, B], pairs of an image and a text that are never drawn.
        count: number of negatives.
        generator: random generator on the device of `positives`.

    Returns:
        Rows of the texts [B, 1 + K], the matching one first, and which of them count [B, 1 + K]: an image that has
        fewer negatives than others has padding.
    """
    size = len(positives)
    order = torch.rand(positives.shape, generator=generator, device=positives.device).masked_fill(positives, -1)
    drawn = order.topk(min(count, size - 1), dim=1)
    own = torch.arange(size, device=positives.device).unsqueeze(1)
    return torch.cat([own, drawn.indices], dim=1), F.pad(drawn.values >= 0, (1, 0), value=True)


def _vilt(options: IeftOptions) -> Any:
    """Transformers' ViLT with as many blocks as the stream; without its last blocks where weights have more.

    Raises:
        UserError: the weights cannot be fetched or read, or lack a tensor.
    """
    quiet_transformers()
    sizes = {
        "hidden_size": options.width,
        "num_hidden_layers": options.blocks,
        "num_attention_heads": options.heads,
        "intermediate_size": 4 * options.width,
        "image_size": options.image_size,
        "patch_size": options.patch_size,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.dropout,
    }
    if options.weights is None:
        return ViltModel(ViltConfig(**sizes))
    place = str(expand(options.weights)) if is_local(options.weights) else options.weights
    if is_local(options.weights) and not Path(place).is_dir():
        raise UserError(f"weights: {place} is not a folder; give one in transformers' layout, or a repository's name")
    with reading_weights(options.weights, local=False):
        vilt, report = ViltModel.from_pretrained(place, output_loading_info=True, **sizes)
        if lacking := sorted(report["missing_keys"]):
            raise ValueError(f"they lack {lacking[0]} and {len(lacking) - 1:,} other tensors of ViLT")
    return vilt
