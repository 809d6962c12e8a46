"""The multimodal encoder of CMPAGL: the second half of its BERT's layers, which fuses text and image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cmer.methods.layers.attention import attend


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
