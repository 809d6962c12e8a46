"""The text towers of open_clip's models, and their tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from cmer.backbones.base import BlockSpec, Features, Site, Tokens
from cmer.backbones.open_clip.image import (
    plain,
    transformer_in_projections,
    transformer_linears,
    transformer_sites,
)
from cmer.errors import UserError


class TextTower:
    """A transformer of open_clip: part of a CLIP, or the `text` of a CustomTextCLIP or CoCa.

    Where attention is causal and the embedding is pooled at the end token, what follows that token changes nothing,
    and texts are cut at the batch's longest. Other towers (SigLIP pools at the last position, MobileCLIP 2 attends
    both ways, CoCa appends a class token) were trained on texts padded to the context length, and get them so.

    Attributes:
        blocks: shapes of the block outputs; a class token is not part of them.
        dim: width of the pooled embedding.
        linears: names of the linear maps within the blocks.
        in_projections: those of them that compute queries, keys or values.
        sites: sub-layers of the blocks.
        input: name of the module whose output is the input embeddings.

    Raises:
        UserError: the tower is another library's, or its blocks are not CLIP's.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        in_model = isinstance(model, open_clip.CLIP)
        tower = model if in_model else model.text
        self.pool = model.text_pool_type if in_model else getattr(tower, "pool_type", "none")
        if not (in_model or isinstance(tower, TextTransformer)) or not plain(tower.transformer) or self.pool == "none":
            raise UserError("only open_clip models with a plain text transformer can serve as backbone")
        self.tower, self.tokenizer = tower, tokenizer
        self.eos = model.text_eos_id if in_model else tower.eos_id
        self.class_token = getattr(tower, "cls_emb", None) is not None
        self.cut = tower.attn_mask is not None and self.pool in ("argmax", "eos") and not self.class_token
        place, layers, width = "model" if in_model else "model.text", tower.transformer.layers, tower.transformer.width
        self.blocks = [BlockSpec(grid=0, width=width, has_cls=False)] * layers
        self.dim: int = self._project(torch.empty(1, width, device=tower.positional_embedding.device)).shape[1]
        self.linears = transformer_linears(f"{place}.transformer", layers)
        self.in_projections = transformer_in_projections(f"{place}.transformer", layers)
        self.sites: list[Site] = transformer_sites(f"{place}.transformer", layers, width)
        self.input = f"{place}.token_embedding"
        tower.output_tokens = False  # CoCa's, for its decoder

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts to tokens, the end token kept; padded to the context length where they may not be cut."""
        ids = self.tokenizer(list(texts))
        lengths = self._lengths(ids)
        mask = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        longest = int(lengths.max()) if self.cut else ids.shape[1]
        return Tokens(ids[:, :longest], mask[:, :longest])

    def _lengths(self, ids: Tensor) -> Tensor:
        inner = getattr(self.tokenizer, "tokenizer", None)
        if inner is None:  # CLIP's own: the end token has the highest number
            return ids.argmax(dim=1) + 1
        places = torch.arange(1, ids.shape[1] + 1)
        last: Tensor = (places * (ids != inner.pad_token_id)).max(dim=1).values
        if inner.pad_token_id == inner.eos_token_id:  # SigLIP's first: the first padding is the end token
            last = last + 1
        return last.clamp(1, ids.shape[1])

    def encode(self, tokens: Tokens, blocks: Sequence[int]) -> Features:
        """Tokens → pooled embeddings [B, dim], through the final norm and the projection, and the block outputs."""
        if self.class_token:
            return self._encode_with_class_token(tokens, blocks)
        tower, length = self.tower, tokens.ids.shape[1]
        x = tower.token_embedding(tokens.ids) + tower.positional_embedding[:length]
        causal = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(tower.transformer.resblocks):
            x = block(x, attn_mask=causal)
            if index in blocks:
                kept[index] = x
        pooled = tower.ln_final(text_global_pool(x, tokens.ids, self.pool, self.eos))
        return Features(self._project(pooled), kept, tokens.mask)

    def _encode_with_class_token(self, tokens: Tokens, blocks: Sequence[int]) -> Features:
        if not blocks:
            return Features(self.tower(tokens.ids), {}, tokens.mask)
        out = self.tower.forward_intermediates(tokens.ids, indices=sorted(blocks), output_fmt="NLC")
        kept = dict(zip(sorted(blocks), out["text_intermediates"], strict=True))
        return Features(out["text_features"], kept, tokens.mask)

    def _project(self, x: Tensor) -> Tensor:
        projection = self.tower.text_projection
        if projection is None:
            return x
        projected: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return projected


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a model that open_clip knows by name; CLIP's own ships with it.

    Raises:
        UserError: it lies on the Hugging Face hub, and can neither be fetched nor found in the hub's local cache.
    """
    try:
        return open_clip.get_tokenizer(model)
    except Exception as error:  # network, hub and cache fail each in its library's own way
        text: dict[str, Any] = open_clip.get_model_config(model)["text_cfg"]
        name = text.get("hf_tokenizer_name") or model
        raise UserError(
            f"cannot load {name}, the tokenizer of {model}; on a machine with network access, run "
            f"`hf download {name} --exclude '*.safetensors' '*.bin'`, and where this machine has none, copy that "
            f"machine's Hugging Face cache (~/.cache/huggingface, or $HF_HOME) here: {error}"
        ) from error
