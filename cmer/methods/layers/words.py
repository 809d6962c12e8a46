"""Sentences as words of the train captions, and their encoding by a GRU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from cmer.backbones.base import Tokens

LEAST = 5
"""How often a word must occur in the train captions to be known."""
PUBLISHED_WORDS = 1349
"""Words of the published vocabulary of RSITMD, on which the printed parameter counts rest."""
SENTENCE_DIM = 512

Biases = Literal["both", "input", "none"]
"""Which biases a GRU has."""


class Vocabulary:
    """Words that occur at least five times in the train captions: runs of letters and digits in lower case.

    Number 0 is padding and every other word; its vector is zero. Without captions, as where parameters are counted, the
    size is that of the published vocabulary.

    Attributes:
        size: number of known words, plus one.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        counts = Counter(word for caption in captions for word in _words(caption))
        known = sorted(word for word, count in counts.items() if count >= LEAST)
        self._numbers = {word: number for number, word in enumerate(known, start=1)}
        self.size = 1 + (len(known) if captions else PUBLISHED_WORDS)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Numbers [B, L] of the words of each text; a text without a word is one unknown word."""
        rows = [torch.tensor([self._numbers.get(word, 0) for word in _words(text)] or [0]) for text in texts]
        mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return Tokens(pad_sequence(rows, batch_first=True), pad_sequence(mask, batch_first=True))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class WordGru(nn.Module):
    """Word vectors and a GRU over them.

    Args:
        words: number of word vectors.
        word_width: width of a word vector.
        width: width of the GRU's state.
        dropout: share of the components of the word vectors that is dropped in training.
        shared_mask: whether all words of a sentence lose the same components (variational dropout).
        bidirectional: whether to read in both directions, and average the two states of each word.
        biases: `both` of the GRU's usual biases, those on its `input` alone, or `none`; the others are zero.
    """

    def __init__(
        self,
        words: int,
        word_width: int,
        width: int,
        *,
        dropout: float,
        shared_mask: bool = True,
        bidirectional: bool = False,
        biases: Biases = "input",
    ) -> None:
        super().__init__()
        self.width, self.dropout, self.shared_mask = width, dropout, shared_mask
        self.words = nn.Embedding(words, word_width, padding_idx=0)
        self.gru = nn.GRU(word_width, width, batch_first=True, bidirectional=bidirectional, bias=biases != "none")
        if biases == "input":
            for name, parameter in self.gru.named_parameters():
                if name.startswith("bias_hh"):
                    nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, tokens: Tokens) -> Tensor:
        """Numbers of words [B, L] → states of the GRU [B, L, width], zero on padding."""
        vectors = self.words(tokens.ids)
        shape = vectors[:, :1] if self.shared_mask else vectors
        vectors = vectors * F.dropout(torch.ones_like(shape), self.dropout, self.training)
        lengths = tokens.mask.sum(dim=1).cpu()
        packed, _ = self.gru(pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False))
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=tokens.ids.shape[1])
        each: Tensor = states.unflatten(-1, (-1, self.width))
        return each.mean(dim=2)


def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """The state [B, d] of the last word of each text, from [B, L, d] and the mask [B, L]."""
    return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]


class SentenceEncoder(nn.Module):
    """ReLU(W h + b), where h is the GRU's state after the last word: the text encoder of AMFMN, MCRN and HVSA.

    It has the form of the skip-thoughts encoder, whose pretrained weights are not to be had: word vectors and GRU start
    from random weights. Its variational dropout, of 0.25, also drops components of the GRU's state between words, which
    torch's GRU cannot; here it drops those of the word vectors alone.

    Args:
        words: number of word vectors.
        word_width: width of a word vector.
        width: width of the GRU's state.
        biases: see `WordGru`.
    """

    def __init__(self, words: int, word_width: int, width: int, biases: Biases = "input") -> None:
        super().__init__()
        self.gru = WordGru(words, word_width, width, dropout=0.25, biases=biases)
        self.out = nn.Linear(width, SENTENCE_DIM)

    def forward(self, tokens: Tokens) -> Tensor:
        """Numbers of words [B, L] → [B, 512]."""
        return F.relu(self.out(last_state(self.gru(tokens), tokens.mask)))
