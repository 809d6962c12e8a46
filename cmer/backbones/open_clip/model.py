"""open_clip's ViT models: CLIP as trained by OpenAI, LAION and others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from torch import Tensor, nn

from cmer.backbones.base import AttachmentPoints, Backbone, BlockSpec, Features, Preprocess, Shapes, Site, Tokens
from cmer.backbones.open_clip.options import QUICK, OpenClipOptions
from cmer.errors import UserError
from cmer.registry import BACKBONES


@BACKBONES.register("open_clip")
class OpenClip(Backbone):
    """An open_clip model whose two towers are transformers.

    The text is cut at the batch's longest caption: with causal attention and EOT pooling, what follows the end
    token changes nothing.

    Raises:
        UserError: the model is unknown, is not a plain ViT with a plain text transformer, its weights cannot be
            had, or were trained with another activation than the model's (QuickGELU or GELU).
    """

    def __init__(self, options: OpenClipOptions) -> None:
        super().__init__()
        if options.model not in open_clip.list_models():
            close = ", ".join(get_close_matches(options.model, open_clip.list_models(), n=6, cutoff=0.5)) or "none"
            raise UserError(f"backbone model {options.model!r} is unknown to open_clip; close names are {close}")
        self._adopt(_load(options), open_clip.get_tokenizer(options.model))

    def _adopt(self, model: Any, tokenizer: Any) -> None:
        plain = isinstance(model, open_clip.CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None
        if not plain or not hasattr(model.visual, "transformer"):
            raise UserError("only open_clip models with a ViT and a plain text transformer can serve as backbone")
        self.model = model
        self._tokenizer = tokenizer
        visual = model.visual
        image = BlockSpec(grid=visual.grid_size[0], width=visual.transformer.width, has_cls=True)
        text = BlockSpec(grid=0, width=model.transformer.width, has_cls=False)
        scale = model.logit_scale
        self.shapes = Shapes(
            image_dim=visual.output_dim,
            text_dim=visual.output_dim,
            aligned=True,
            logit_scale=100.0 if scale.is_meta else float(scale.detach().exp()),
            blocks=[image] * len(visual.transformer.resblocks),
            text_blocks=[text] * len(model.transformer.resblocks),
        )
        del model.logit_scale  # a method's, which starts from the shapes' value; the towers do not use it
        given = getattr(visual, "preprocess_cfg", {})
        mean, std = given.get("mean", open_clip.OPENAI_DATASET_MEAN), given.get("std", open_clip.OPENAI_DATASET_STD)
        self.preprocess = Preprocess(size=visual.image_size[0], mean=mean, std=std)

    def encode_images(self, pixels: Tensor, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`; blocks are the outputs of the residual blocks, class token first."""
        kept: dict[int, Tensor] = {}
        with ExitStack() as hooks:
            for index in blocks:
                hook = self.model.visual.transformer.resblocks[index].register_forward_hook(partial(_keep, kept, index))
                hooks.callback(hook.remove)
            pooled = self.model.visual(pixels)
        return Features(pooled, kept)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Backbone`; at most the model's context length (77), the end token kept."""
        ids = self._tokenizer(list(texts))
        ends = ids.argmax(dim=1, keepdim=True)
        mask = torch.arange(ids.shape[1]) <= ends
        longest = int(ends.max()) + 1
        return Tokens(ids[:, :longest], mask[:, :longest])

    def encode_texts(self, tokens: Tokens, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`; pooled at the end token, through the final norm and the text projection."""
        model, length = self.model, tokens.ids.shape[1]
        x = model.token_embedding(tokens.ids) + model.positional_embedding[:length]
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(model.transformer.resblocks):
            x = block(x, attn_mask=model.attn_mask[:length, :length])
            if index in blocks:
                kept[index] = x
        ends = model.ln_final(x[torch.arange(len(x), device=x.device), tokens.ids.argmax(dim=-1)])
        return Features(ends @ model.text_projection, kept, tokens.mask)

    def attachment_points(self) -> AttachmentPoints:
        """See `Backbone`; `attn` is the fused multi-head attention (in and out projection together)."""
        image, text = "model.visual.transformer", "model.transformer"
        image_width, text_width = self.shapes.blocks[0].width, self.shapes.text_blocks[0].width
        return AttachmentPoints(
            image_linears=_linears(image, len(self.shapes.blocks)),
            text_linears=_linears(text, len(self.shapes.text_blocks)),
            image_sites=_sites(image, len(self.shapes.blocks), image_width),
            text_sites=_sites(text, len(self.shapes.text_blocks), text_width),
            image_input="model.visual.patch_dropout",
            text_input="model.token_embedding",
        )


def _keep(kept: dict[int, Tensor], index: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    kept[index] = output


def _linears(transformer: str, blocks: int) -> list[str]:
    parts = ("attn", "mlp.c_fc", "mlp.c_proj")
    return [f"{transformer}.resblocks.{i}.{part}" for i in range(blocks) for part in parts]


def _sites(transformer: str, blocks: int, width: int) -> list[Site]:
    parts: list[tuple[Literal["attention", "mlp"], str]] = [("attention", "1"), ("mlp", "2")]
    names = [(i, part, f"{transformer}.resblocks.{i}", n) for i in range(blocks) for part, n in parts]
    return [Site(i, part, f"{block}.ln_{n}", f"{block}.ls_{n}", width) for i, part, block, n in names]


def _load(options: OpenClipOptions) -> Any:
    """Create the model; its activation is checked against the weights before anything is fetched."""
    quick = bool(open_clip.get_model_config(options.model).get("quick_gelu", False))
    if options.pretrained:
        known = open_clip.get_pretrained_cfg(options.model, options.pretrained)
        if not known:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(options.model)) or "none"
            raise UserError(f"{options.model} has no pretrained tag {options.pretrained!r}; known are {tags}")
        _same_activation(options.model, quick, bool(known.get("quick_gelu", False)), f"tag {options.pretrained!r}")
    if options.weights:
        _same_activation(options.model, quick, bool(options.quick_gelu), options.weights)
        if not Path(options.weights).is_file():
            raise UserError(f"backbone weights {options.weights} do not exist")
    logging.disable(logging.WARNING)  # open_clip reports its steps, and random weights, on the root logger
    torch.manual_seed(options.seed)
    try:
        weights = options.weights or options.pretrained
        return open_clip.create_model(options.model, pretrained=weights, device=torch.get_default_device())
    except Exception as error:  # a network, a file or a key may fail, each in its library's own way
        what = options.weights or f"{options.model}/{options.pretrained}"
        raise UserError(f"cannot load weights {what}: {error}") from error
    finally:
        logging.disable(logging.NOTSET)


def _same_activation(model: str, model_quick: bool, weights_quick: bool, weights: str) -> None:
    if model_quick != weights_quick:
        right = model.removesuffix(QUICK) + (QUICK if weights_quick else "")
        names = {True: "QuickGELU", False: "GELU"}
        raise UserError(
            f"{weights} was trained with {names[weights_quick]}, {model} computes {names[model_quick]}; "
            f"the mismatch costs several points of recall: use model: {right}"
        )
