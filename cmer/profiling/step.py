"""A method's real training step, on a synthetic batch that is already on the training device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cmer.backbones.base import Backbone, Features, Preprocess, Tokens
from cmer.backbones.build import build as build_backbone
from cmer.config.backbones import FeatureOptions
from cmer.config.base import Precision
from cmer.config.runs import RunSpec
from cmer.config.training import Training
from cmer.data.pairs import Pairs
from cmer.data.sampler import Batch
from cmer.errors import UserError
from cmer.features.device import autocast, device
from cmer.features.inputs import Inputs
from cmer.methods.base import Method
from cmer.methods.build import build, context_of
from cmer.profiling.spec import ProfileRow, ProfileSpec, Setting
from cmer.profiling.stored import StoredFeatures
from cmer.training.loop import Trainer

TEXT_LENGTHS: dict[Setting, int] = {"paper_like": 77, "today": 32}
"""Number of tokens per text, after padding.

77 is CLIP's text length. 32 is the longest text of a training batch, to which the batch is padded: in batches of 256
pairs it has on average 31 tokens on RSITMD and 27 on RSICD, and 33 and 30 with scene prompts, however few pairs are
measured here.
"""
LEARNING_RATE = 1e-6
"""Learning rate, small enough for hundreds of steps on one batch to stay finite; no cost depends on it."""


@dataclass(frozen=True)
class Model:
    """A method on the training device, and the backbone whose frozen outputs it reads, or None if it reads none."""

    backbone: Backbone | None
    method: Method

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of pixels."""
        return self.method.preprocess if self.backbone is None else self.backbone.preprocess

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise texts."""
        return self.method.tokenize(texts) if self.backbone is None else self.backbone.tokenize(texts)

    @classmethod
    def build(cls, spec: ProfileSpec, row: ProfileRow) -> Model:
        """Build a row's method, with random weights if pretrained ones would have to be fetched; costs are the same.

        Raises:
            UserError: the backbone cannot be built, the method does not fit it, or it trains nothing.
        """
        backbone, features = None, FeatureOptions()
        if spec.backbone is not None and not row.options.own_towers:
            unused = row.stored and not row.options.runs_backbone and spec.backbone.gpu
            with torch.device("meta" if unused else "cpu"):  # large towers that do not run have shapes alone
                backbone = build_backbone(spec.backbone.without_weights())
            backbone = backbone if unused else backbone.to(device())
            features = spec.backbone.features
        captions = synthetic_pairs(max(spec.profile.batches)).texts
        options = row.options.alone()  # the members of an ensemble are trained one by one
        context = context_of(options, backbone, features, captions, seed=0)
        method = build(row.method, options.without_weights(), context).to(device())
        if not method.count():
            raise UserError(f"method {row.method} trains nothing, so there is no training step to measure")
        return cls(backbone, method)


class Step:
    """The loop's own step: frozen towers, method, losses, backward pass, clipping, AdamW, negative queue.

    Pixels are random; texts are the demo's captions, tokenised in advance. For methods that read frozen features, these
    are computed at every step, as in online training, or read from a store of random ones. All texts have the length of
    the setting, less in a tower with a shorter context and more in one that pads to a longer context, so that the cost
    is an affine function of the batch size. Deterministic kernels, which trainings use, are disabled, because their
    cost on a GPU is not that of the method.

    Args:
        model: model built from `row`; its steps must not run at the same time.
        spec: spec of the profile.
        row: the run to measure.
        setting: one of `ProfileOptions.settings`.
        size: number of pairs in the batch.
    """

    def __init__(self, model: Model, spec: ProfileSpec, row: ProfileRow, setting: Setting, size: int) -> None:
        self.model, self.setting, self.size = model, setting, size
        self.precision: Precision = "bfloat16" if setting == "today" and device().type == "cuda" else "float32"
        pairs = synthetic_pairs(max(spec.profile.batches))
        # For a prompt share of 1 / k, every k-th pair has its prompt, so that batches of any size have this share.
        share = model.method.prompt_share() * np.arange(len(pairs.texts) + 1)
        prompted = np.diff(np.floor(share)) > 0
        texts = np.where(prompted, pairs.prompts, pairs.texts).tolist()
        length = TEXT_LENGTHS[setting]
        context = model.tokenize(["a " * length]).ids.shape[1]  # The tower's own context length may be shorter.
        tokens = padded(model.tokenize(texts[:-1]), min(length, context))
        self.tokens = Tokens(tokens.ids[:size], tokens.mask[:size]).to(device())
        self.rows = {text: row for row, text in enumerate(texts)}
        self.watch: Callable[[Features], object] = ignore
        self.store = self._store(spec, texts[:size]) if row.stored else None
        side = model.preprocess.size
        self.pixels = torch.randn(size, 3, side, side, device=device())
        ids = np.arange(size)
        self.batch = Batch(ids, ids, prompted[:size], np.zeros(size, np.int64))
        training = Training(
            batch_size=size,
            micro_batch=row.micro_batch,
            lr=LEARNING_RATE,
            precision=self.precision,
            inputs="online",
            threads=spec.profile.threads,
        )
        run = RunSpec(
            run=row.run,
            dataset="synthetic",
            seed=0,
            backbone=None if row.options.own_towers else spec.backbone,
            method=row.method,
            options=row.options.alone(),
            training=training,
        )
        inputs = Inputs(self._images, self._texts, stored=row.stored)
        nowhere = Path(os.devnull)  # no state to resume from
        self.trainer = Trainer(model.method, inputs, pairs, run, nowhere, repeat=False)

    def _store(self, spec: ProfileSpec, texts: Sequence[str]) -> StoredFeatures:
        assert self.model.backbone is not None and spec.backbone is not None
        tokens = self.tokens.ids.shape[1]
        return StoredFeatures(self.model.backbone, spec.backbone, self.model.method, texts, tokens)

    def run(self) -> None:
        """Run one step with the attention of the setting."""
        if self.store is not None:
            self.store.turn()
        with plain_attention() if self.setting == "paper_like" else nullcontext():
            self.trainer.step(self.batch)

    def kept(self) -> list[Tensor]:
        """Tensors that are in memory whether or not a step runs: parameters, buffers and the batch."""
        modules = [module for module in (self.model.backbone, self.model.method) if module is not None]
        state = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        memory = self.trainer.state.memory
        return [*state, *(memory.tensors() if memory else []), self.pixels, self.tokens.ids, self.tokens.mask]

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        with torch.no_grad(), autocast(self.precision):
            yield

    def _images(self, images: np.ndarray, _views: np.ndarray, _training: bool) -> Features | Tensor:
        backbone, method = self.model.backbone, self.model.method
        pixels = self.pixels[images[0] : images[-1] + 1]  # a view: a part's pixels are in memory already
        if method.options.image_input == "pixels":
            return pixels
        if self.store is not None:
            return self._watched(self.store.images(images))
        assert backbone is not None
        with self._frozen():
            return self._watched(backbone.encode_images(pixels, method.image_blocks).to(device()))

    def _texts(self, texts: Sequence[str]) -> Features | Tokens:
        backbone, method = self.model.backbone, self.model.method
        rows = slice(self.rows[texts[0]], self.rows[texts[-1]] + 1)
        tokens = Tokens(self.tokens.ids[rows], self.tokens.mask[rows])
        if method.options.text_input == "tokens":
            return tokens
        if self.store is not None:
            return self._watched(self.store.texts(texts))
        assert backbone is not None
        with self._frozen():
            return self._watched(backbone.encode_texts(tokens, method.text_blocks).to(device()))

    def _watched(self, features: Features) -> Features:
        self.watch(features)
        return features


def ignore(_features: Features) -> None:
    """Watch nothing."""


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute all attention as matrix products and a softmax, without fused kernels.

    PyTorch has two kinds of fused kernels: those behind `scaled_dot_product_attention`, and the one that
    `nn.MultiheadAttention` uses in eval mode if nothing requires a gradient. Neither keeps attention maps, and FLOP
    counters cannot look inside the second.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def padded(tokens: Tokens, length: int) -> Tokens:
    """Pad shorter texts to `length` tokens, and unmask all tokens, so that all of them are computed."""
    ids = F.pad(tokens.ids, (0, max(0, length - tokens.ids.shape[1])))
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))


@cache
def synthetic_pairs(size: int) -> Pairs:
    """`size` train pairs with distinct captions, and one validation pair.

    The captions are the first ones of the demo, stored in a file so that an edited drawing does not trigger new
    profiles. The images have no files, because nothing opens them.
    """
    with resources.files("cmer.profiling").joinpath("captions.csv").open(encoding="utf-8") as file:
        known = pd.read_csv(file)
    table = pd.concat([known] * -(-(size + 1) // len(known)), ignore_index=True)[: size + 1]
    turn = table.index // len(known)
    texts = [f"{text} {n + 1}" if n else text for text, n in zip(table["caption"], turn, strict=True)]
    names = sorted(set(known["label"]))
    ids = np.arange(size + 1)
    return Pairs(
        files=[""] * len(ids),
        sha256=[""] * len(ids),
        label_names=names,
        labels=np.array([names.index(name) for name in table["label"]]),
        caption_image=ids,
        texts=texts,
        prompts=[f"{name}. {text}" for name, text in zip(table["label"], texts, strict=True)],
        train_images=ids[:-1],
        val_images=ids[-1:],
        test_images=ids[:0],
        official_train=ids[:-1],
    )
