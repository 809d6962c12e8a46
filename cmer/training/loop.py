"""The one training loop: AdamW, linear warm-up, cosine to zero, selection on validation mR, resumable at any step."""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cmer.config import RunSpec
from cmer.data.pairs import Pairs
from cmer.data.sampler import Batch, epoch_batches
from cmer.errors import UserError
from cmer.features.extract import device
from cmer.features.inputs import Inputs
from cmer.losses.memory import Meta
from cmer.methods.base import Method, full_precision
from cmer.progress import progress
from cmer.retrieval.embed import encode_images, encode_texts, score
from cmer.retrieval.recall import ranks, recalls
from cmer.training import distributed
from cmer.training.state import State

SAVE_EVERY = 30.0
"""Seconds between two saves within an epoch; when the state is saved changes nothing of the result."""


class Trainer:
    """Trains a method on a dataset, or goes on where an interrupted training stopped.

    A killed run that is started again ends with the same bytes as one that was not: batches depend on seed and epoch
    alone, and the state holds everything else.

    Args:
        method: with its weights as they start, on the training device.
        inputs: of the dataset.
        pairs: the dataset.
        spec: of the run.
        state_file: where the state is kept while training.

    Raises:
        UserError: the dataset has too few train or no validation images, or a batch fewer pairs than there are
            processes.
    """

    def __init__(self, method: Method, inputs: Inputs, pairs: Pairs, spec: RunSpec, state_file: Path) -> None:
        if len(pairs.train_images) < 2 or not len(pairs.val_images):
            raise UserError(
                f"dataset {spec.dataset} has {len(pairs.train_images)} train and {len(pairs.val_images)} validation "
                "images; training needs at least two and one"
            )
        self.method, self.inputs, self.pairs, self.spec, self.state_file = method, inputs, pairs, spec, state_file
        self.options = spec.training
        self.text_ids = {text: i for i, text in enumerate(dict.fromkeys(pairs.texts))}
        first = self.batches(0)
        self.steps, least = len(first), min(len(batch.images) for batch in first)
        if least < distributed.count():
            raise UserError(
                f"{distributed.count()} processes cannot share a batch of {least}; change training.batch_size"
            )
        self.state = self._start()

    def batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch."""
        return epoch_batches(
            self.pairs,
            epoch=epoch,
            seed=self.spec.seed,
            batch_size=self.options.batch_size,
            epoch_of=self.options.epoch_of,
            prompt_share=self.method.prompt_share(),
            views=self.spec.backbone.features.views,
        )

    def _start(self) -> State:
        trained = self.method.trained()
        memory = self.method.memory(self.options.batch_size)
        state = State(trained, adamw(trained, self.options.weight_decay), memory.to(device()) if memory else None)
        if self.options.ema:
            state.average = {name: p.detach().clone() for name, p in trained.items()}
        distributed.prepare(self.method, self.spec.seed)
        state.load(self.state_file)
        return state

    def run(self) -> State:
        """Train to the last epoch; the weights of the best one are in the returned state's `best`.

        Raises:
            UserError: the loss is not finite, or the disk is full.
        """
        state, total = self.state, self.steps * self.options.epochs
        if state.images_seen and distributed.rank() == 0:
            where = f"(epochs done: {state.epoch}, steps: {state.step})"
            print(f"{self.spec.run}: goes on where it stopped {where}", file=sys.stderr)
        shown = progress(self.spec.run, total, state.epoch * self.steps + state.step)
        with shown if distributed.rank() == 0 else nullcontext(_silent) as advance:
            while state.epoch < self.options.epochs:
                saved = started = time.monotonic()
                before = state.images_seen
                for batch in self.batches(state.epoch)[state.step :]:
                    loss = self.step(batch)
                    now = time.monotonic()
                    mr = f"val mR {state.curve[-1]['val_mr']:.2f}  " if state.curve else ""
                    speed = (state.images_seen - before) / (now - started)
                    advance(1, f"epoch {state.epoch + 1}  loss {loss:.3f}  {mr}{speed:.0f} pairs/s")
                    if distributed.from_first(now - saved) > SAVE_EVERY:
                        state.save(self.state_file)
                        saved = now
                self.end_epoch()
        return state

    def step(self, batch: Batch) -> float:
        """One optimisation step; the batch enters the memory afterwards. Returns the loss.

        Raises:
            UserError: the loss is not finite.
        """
        state, options, pairs = self.state, self.options, self.pairs
        own = distributed.share(batch)
        texts = [(pairs.prompts if p else pairs.texts)[c] for c, p in zip(own.captions, own.prompted, strict=True)]
        self.method.train()
        low = device().type == "cuda" and options.precision == "bfloat16"
        with torch.autocast(device().type, torch.bfloat16, enabled=low):
            image_items = self.method.encode_images(self.inputs.images(own.images, own.views, True))
            text_items = self.method.encode_texts(self.inputs.texts(texts))
        image_items = distributed.gather(full_precision(image_items))
        text_items = distributed.gather(full_precision(text_items))
        meta = self.meta(batch)
        losses = self.method.losses(image_items, text_items, meta, state.memory)
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss of {self.spec.run} is {loss.item()} in epoch {state.epoch + 1}; lower training.lr"
            )
        rate = schedule(state.epoch * self.steps + state.step, self.steps * options.epochs, options.warmup)
        for group in state.optimizer.param_groups:
            group["lr"] = options.lr * rate
        state.optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(self.method.parameters())
        nn.utils.clip_grad_norm_(self.method.parameters(), options.grad_clip)
        state.optimizer.step()
        self._average()
        if state.memory is not None:
            state.memory.enqueue(image_items.detach(), text_items.detach(), meta)
        for name, value in losses.items():
            state.loss[name] = state.loss.get(name, 0.0) + value.item()
        state.step += 1
        state.images_seen += len(batch.images)
        return loss.item()

    def meta(self, batch: Batch) -> Meta:
        """Who the pairs of the batch are, on the training device; a caption is the same with and without prompt."""
        text_ids = torch.tensor([self.text_ids[self.pairs.texts[caption]] for caption in batch.captions])
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(self.pairs.labels[batch.images])
        return Meta(images.to(device()), text_ids.to(device()), labels.to(device()))

    @torch.no_grad()
    def _average(self) -> None:
        if self.state.average is not None:
            for name, parameter in self.state.trained.items():
                self.state.average[name].lerp_(parameter, 1 - self.options.ema)

    def end_epoch(self) -> None:
        """Validate, note the epoch in the curve, keep its weights if they are the best so far, save the state."""
        state = self.state
        weights = state.snapshot()
        mr = distributed.from_first(self.validate(weights) if distributed.rank() == 0 else 0.0)
        losses = {name: round(value / self.steps, 6) for name, value in sorted(state.loss.items())}
        if not state.best or mr > max(entry["val_mr"] for entry in state.curve):
            state.best = weights
        state.curve.append({"epoch": state.epoch + 1, "loss": losses, "val_mr": round(mr, 4)})
        state.epoch, state.step, state.loss = state.epoch + 1, 0, {}
        state.save(self.state_file)

    def validate(self, weights: dict[str, Tensor]) -> float:
        """Validation mR (percent): these weights on the images that select and their plain captions.

        A method trained on prompted captions alone is validated on those too: plain ones are foreign to it.
        """
        current = {name: parameter.detach().clone() for name, parameter in self.state.trained.items()}
        put(self.state.trained, weights)
        images, pairs = self.pairs.val_images, self.pairs
        captions = pairs.captions_of(images)
        source = pairs.prompts if self.method.prompt_share() == 1 else pairs.texts
        texts, index = encode_texts(self.method, self.inputs, [source[c] for c in captions])
        items = encode_images(self.method, self.inputs, images, self.spec.backbone.features.views)
        put(self.state.trained, current)
        owner = np.searchsorted(images, pairs.caption_image[captions])
        return recalls(*ranks(score(self.method, items, texts, index), owner)).mr


def _silent(count: int, note: str = "") -> None:
    """No progress: another process shows it."""


@torch.no_grad()
def put(trained: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Copy `values` into the tensors of the same names."""
    for name, tensor in trained.items():
        tensor.copy_(values[name])


def adamw(trained: dict[str, Tensor], weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and convolutions only: no biases, norms, attention biases or temperature."""
    matrices = [p for p in trained.values() if p.requires_grad and p.ndim in (2, 4)]
    others = [p for p in trained.values() if p.requires_grad and p.ndim not in (2, 4)]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999))


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at a step: linear rise over the warm-up's share, then a cosine to 0."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
