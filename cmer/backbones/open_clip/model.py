"""open_clip's models: CLIP as trained by OpenAI, LAION and others, SigLIP, MobileCLIP, PE and CoCa."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

import open_clip
import torch
from torch import Tensor

from cmer.backbones.base import AttachmentPoints, Backbone, Features, Preprocess, Shapes, Tokens
from cmer.backbones.open_clip.blocks import replace_parts
from cmer.backbones.open_clip.cards import card
from cmer.backbones.open_clip.image import image_tower
from cmer.backbones.open_clip.options import QUICK, OpenClipOptions
from cmer.backbones.open_clip.text import TextTower, load_tokenizer
from cmer.backbones.open_clip.weights import load_file, published_file, with_preprocessing
from cmer.backbones.weights import reading_weights
from cmer.errors import UserError
from cmer.io import expand
from cmer.registry import BACKBONES


@BACKBONES.register("open_clip")
class OpenClip(Backbone):
    """An open_clip model with a ViT or a FastViT, open_clip's or timm's, beside a text transformer.

    Raises:
        UserError: the model is unknown, has other towers, its tokenizer or weights cannot be had, or the weights were
            trained with another activation than the model's (QuickGELU or GELU).
    """

    def __init__(self, options: OpenClipOptions) -> None:
        super().__init__()
        if options.model not in open_clip.list_models():
            close = ", ".join(get_close_matches(options.model, open_clip.list_models(), n=6, cutoff=0.5)) or "none"
            raise UserError(f"backbone model {options.model!r} is unknown to open_clip; close names are {close}")
        tokenizer = load_tokenizer(options.model)
        self._adopt(_load(options), tokenizer)

    def _adopt(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        replace_parts(model)
        self._image, self._text = image_tower(model.visual), TextTower(model, tokenizer)
        scale, bias = model.logit_scale, model.logit_bias
        self.shapes = Shapes(
            image_dim=self._text.dim,
            text_dim=self._text.dim,
            aligned=True,
            logit_scale=100.0 if scale.is_meta else float(scale.detach().exp()),
            logit_bias=None if bias is None else -10.0 if bias.is_meta else float(bias.detach()),
            blocks=self._image.blocks,
            text_blocks=self._text.blocks,
        )
        del model.logit_scale  # a method's, which starts from the shapes' value; the towers do not use it
        model.logit_bias = None  # likewise
        if isinstance(model, open_clip.CoCa):
            del model.text_decoder  # writes captions
        given = getattr(model.visual, "preprocess_cfg", {})
        self.preprocess = Preprocess(
            size=model.visual.image_size[0],
            mean=given.get("mean", open_clip.OPENAI_DATASET_MEAN),
            std=given.get("std", open_clip.OPENAI_DATASET_STD),
            resize=given.get("resize_mode", "shortest"),
            interpolation=given.get("interpolation", "bicubic"),
        )

    def encode_images(self, pixels: Tensor, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`; blocks are the residual blocks of a ViT, class token first, or the stages of a FastViT."""
        return self._image.encode(pixels, blocks)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Backbone`; at most the model's context length (77 for CLIP), the end token kept."""
        return self._text.tokenize(texts)

    def encode_texts(self, tokens: Tokens, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`; blocks are the residual blocks."""
        return self._text.encode(tokens, blocks)

    def attachment_points(self) -> AttachmentPoints:
        """See `Backbone`."""
        image, text = self._image, self._text
        return AttachmentPoints(
            image_linears=image.linears,
            text_linears=text.linears,
            image_in_projections=image.in_projections,
            text_in_projections=text.in_projections,
            image_sites=image.sites,
            text_sites=text.sites,
            image_input=image.input,
            text_input=text.input,
            image_map=image.map,
        )


def _load(options: OpenClipOptions) -> Any:
    """Create the model; its activation is checked against the weights before anything is fetched."""
    published = card(options.backbone) if options.backbone else None
    if options.weights or options.backbone:
        _same_activation(options.model, bool(options.quick_gelu), options.weights or str(options.backbone))
        model = _created(options) if published is None else with_preprocessing(_created(options), published)
        with (
            nullcontext(str(expand(options.weights)))
            if options.weights
            else published_file(str(options.backbone)) as path
        ):
            return load_file(model, path)
    if not options.pretrained:
        return _created(options)
    known = open_clip.get_pretrained_cfg(options.model, options.pretrained)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(options.model)) or "none"
        raise UserError(f"{options.model} has no pretrained tag {options.pretrained!r}; known are {tags}")
    _same_activation(options.model, bool(known.get("quick_gelu", False)), f"tag {options.pretrained!r}")
    with reading_weights(f"{options.model}/{options.pretrained}", local=False):
        return _created(options, options.pretrained)


def _created(options: OpenClipOptions, tag: str | None = None) -> Any:
    """open_clip's model with the weights of a tag, or random ones."""
    logging.disable(logging.WARNING)  # open_clip reports its steps, and random weights, on the root logger
    torch.manual_seed(options.seed)
    try:
        return open_clip.create_model(options.model, pretrained=tag, device=torch.get_default_device())
    finally:
        logging.disable(logging.NOTSET)


def _same_activation(model: str, weights_quick: bool, weights: str) -> None:
    model_quick = bool(open_clip.get_model_config(model).get("quick_gelu", False))
    if model_quick != weights_quick:
        right = model.removesuffix(QUICK) + (QUICK if weights_quick else "")
        names = {True: "QuickGELU", False: "GELU"}
        raise UserError(
            f"{weights} was trained with {names[weights_quick]}, {model} computes {names[model_quick]}; "
            f"the mismatch costs several points of recall: use model: {right}"
        )
