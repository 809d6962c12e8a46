"""Toy methods that no part of cmer knows: a conditioned scorer, a single-stream pair scorer, two learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Preprocess, Tokens
from cmer.config.methods import MethodOptions, Scoring
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, ParameterGroup
from cmer.methods.items import Items, concatenate, count_items, select
from cmer.methods.layers.settings import EmbeddingOptions
from cmer.methods.linear_probe.model import LinearProbe
from cmer.registry import METHOD_OPTIONS, METHODS


def matching(scores: Tensor) -> dict[str, Tensor]:
    """Which of the batch's texts is each image's."""
    return {"matching": F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))}


class Words:
    """A vocabulary of the train captions."""

    def __init__(self, captions: Sequence[str]) -> None:
        words = sorted({word for caption in captions for word in caption.split()})
        self.ids = {word: number for number, word in enumerate(words, start=2)}
        self.size = len(words) + 2  # 0 pads, 1 is any other word

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        rows = [torch.tensor([self.ids.get(word, 1) for word in text.split()]) for text in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return Tokens(ids, ids > 0)


# --- a single-stream pair scorer with a CNN of its own ---------------------------------------------------------------


@METHOD_OPTIONS.register("toy_pairs")
class ToyPairsOptions(MethodOptions):
    own_towers: ClassVar[bool] = True
    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"

    @property
    def scoring(self) -> Scoring:
        return "pair"


@METHODS.register("toy_pairs")
class ToyPairs(Method):
    pairs_per_block = 24

    def __init__(self, options: ToyPairsOptions, context: Context) -> None:
        super().__init__(options, context)
        self.words = Words(context.captions)
        self.cnn = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.embedding = nn.Embedding(self.words.size, 8, padding_idx=0)
        self.network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
        self.pairs_scored = 0

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        return self.words.tokenize(texts)

    def encode_images(self, batch: Any) -> Items:
        return {"channels": self.cnn(batch).flatten(1)}  # a tree, not a tensor

    def encode_texts(self, batch: Any) -> Items:
        return {"bag": self.embedding(batch.ids).sum(dim=1)}

    def score(self, images: Items, texts: Items) -> Tensor:
        n, m = count_items(images), count_items(texts)
        self.pairs_scored += n * m
        assert self.training or n * m <= self.pairs_per_block
        pairs = [images["channels"][:, None].expand(n, m, -1), texts["bag"].expand(n, m, -1)]
        return self.network(torch.cat(pairs, dim=-1)).squeeze(-1)

    def losses(self, images: Items, texts: Items, batch: PairIds, memory: Any, step: Any) -> dict[str, Tensor]:
        return matching(self.score(images, texts))


# --- texts conditioned on images: attention over ragged words, and a memory of ragged items --------------------------


class ItemMemory(Memory):
    """The texts of the last batch, ragged as they are."""

    def __init__(self) -> None:
        self.texts: Items | None = None

    def enqueue(self, images: Items, texts: Items, batch: PairIds) -> None:
        self.texts = select(texts, slice(0, 3)) if self.texts is None else concatenate([self.texts, texts])
        self.texts = select(self.texts, slice(-8, None))

    def state_dict(self) -> dict[str, Any]:
        return {"texts": self.texts}

    def load_state_dict(self, state: dict[str, Any]) -> object:
        self.texts = state["texts"]
        return None

    def to(self, device: torch.device) -> ItemMemory:
        return self


@METHOD_OPTIONS.register("toy_conditioned")
class ToyConditionedOptions(MethodOptions):
    own_towers: ClassVar[bool] = True
    image_input: ClassVar[Literal["features", "pixels"]] = "pixels"

    dropout: float = 0.0

    @property
    def scoring(self) -> Scoring:
        return "conditioned"


@METHODS.register("toy_conditioned")
class ToyConditioned(Method):
    pairs_per_block = 40

    def __init__(self, options: ToyConditionedOptions, context: Context) -> None:
        super().__init__(options, context)
        self.vocabulary = Words(context.captions)
        self.patches = nn.Conv2d(3, 12, 8, stride=8)
        self.words = nn.Embedding(self.vocabulary.size, 12, padding_idx=0)
        self.out = nn.Linear(12, 12)
        self.dropout = nn.Dropout(options.dropout)

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        return self.vocabulary.tokenize(texts)

    def encode_images(self, batch: Any) -> Items:
        return self.dropout(self.patches(batch).flatten(2).mean(dim=2))

    def encode_texts(self, batch: Any) -> Items:
        return {"words": self.words(batch.ids), "mask": batch.mask}  # ragged

    def score(self, images: Items, texts: Items) -> Tensor:
        """The words attend to the image: what padding holds must not count."""
        weights = torch.einsum("nd,mld->nml", images, texts["words"]).masked_fill(~texts["mask"], float("-inf"))
        pooled = torch.einsum("nml,mld->nmd", weights.softmax(dim=-1), texts["words"])
        return 5 * torch.einsum("nd,nmd->nm", F.normalize(self.out(images), dim=-1), F.normalize(pooled, dim=-1))

    def memory(self, batch_size: int) -> ItemMemory:
        return ItemMemory()

    def losses(self, images: Items, texts: Items, batch: PairIds, memory: Any, step: Any) -> dict[str, Tensor]:
        found = matching(self.score(images, texts))
        if memory.texts is not None:  # the more, the later the training
            found["memory"] = step.step / step.total * self.score(images, memory.texts).logsumexp(dim=1).mean()
        return found


# --- a method on a backbone with two learning rates and a frozen part ------------------------------------------------


@METHOD_OPTIONS.register("toy_rates")
class ToyRatesOptions(EmbeddingOptions):
    """The linear probe's."""


@METHODS.register("toy_rates")
class ToyRates(LinearProbe):
    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("image.*", rate=0.1, decay=0.3), ParameterGroup("text.weight")]
