"""The training loop: AdamW, linear warm-up, cosine decay, selection on validation mR, resumable at any step."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cmer.config.runs import RunSpec
from cmer.data.pairs import Pairs
from cmer.data.sampler import Batch, epoch_batches
from cmer.errors import UserError
from cmer.features.device import device
from cmer.features.inputs import Inputs
from cmer.losses.bank import Bank
from cmer.losses.memory import PairIds
from cmer.methods.base import Method, StepInfo
from cmer.methods.items import Items, detached, full_precision
from cmer.progress import progress
from cmer.training import distributed
from cmer.training.bank import PAIRS_PER_BATCH, fill
from cmer.training.checkpoint import load_tensors
from cmer.training.optimizer import adamw, schedule
from cmer.training.out_of_memory import within_memory
from cmer.training.parts import Encoding
from cmer.training.state import State
from cmer.training.validation import validation_mr

SAVE_EVERY = 30.0
"""Seconds between two saves within an epoch; the times of the saves do not affect the result."""


class Trainer:
    """Trains a method on a dataset, or resumes an interrupted training.

    A run that was killed and resumed ends with the same bytes as an uninterrupted one: batches depend only on seed and
    epoch, and the state contains everything else.

    Args:
        method: method with its initial weights, on the training device.
        inputs: inputs of the dataset.
        pairs: the dataset.
        spec: spec of the run.
        state_file: file of the resumable state.
        repeat: whether a step that runs out of memory is repeated in smaller parts, instead of raising the error.

    Raises:
        UserError: the dataset has too few train images, or no validation images.
    """

    def __init__(
        self, method: Method, inputs: Inputs, pairs: Pairs, spec: RunSpec, state_file: Path, repeat: bool = True
    ) -> None:
        if len(pairs.train_images) < 2 or not len(pairs.val_images):
            raise UserError(
                f"dataset {spec.dataset} has {len(pairs.train_images)} train and {len(pairs.val_images)} validation "
                "images; training needs at least two and one"
            )
        self.method, self.inputs, self.pairs, self.spec, self.state_file = method, inputs, pairs, spec, state_file
        self.options, self.views, self.repeat = spec.training, spec.views, repeat
        self.text_ids = {text: i for i, text in enumerate(dict.fromkeys(pairs.texts))}
        self.steps = len(self.batches(0))
        self.shares = distributed.Shares(method, spec.seed)
        self.state = self._start()

    def batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch."""
        return self._drawn(epoch, self.options.batch_size, self.options.epoch_of)

    def bank_batches(self, step: int) -> list[Batch]:
        """One pair per train image, for the bank's refresh before a step: other draws than those of any epoch."""
        return self._drawn(self.options.epochs + step, PAIRS_PER_BATCH, "images")

    def _drawn(self, epoch: int, batch_size: int, epoch_of: Literal["pairs", "images"]) -> list[Batch]:
        return epoch_batches(
            self.pairs,
            epoch=epoch,
            seed=self.spec.seed,
            batch_size=batch_size,
            epoch_of=epoch_of,
            prompt_share=self.method.prompt_share(),
            views=self.views,
        )

    def _start(self) -> State:
        trained = self.method.trained()
        memory = self.method.bank(len(self.pairs.train_images)) or self.method.memory(self.options.batch_size)
        optimizer = adamw(self.method, trained, self.options.weight_decay)
        state = State(trained, optimizer, memory.to(device()) if memory else None, micro_batch=self.options.micro_batch)
        if self.options.ema:
            state.average = {name: p.detach().clone() for name, p in trained.items()}
        state.load(self.state_file)
        return state

    def run(self) -> State:
        """Train to the last epoch; `best` of the returned state has the weights of the best epoch.

        Raises:
            UserError: the loss is not finite, or the disk is full.
        """
        state, total = self.state, self.steps * self.options.epochs
        if state.images_seen and distributed.rank() == 0:
            where = f"(epochs done: {state.epoch}, steps: {state.step})"
            print(f"{self.spec.run}: resuming {where}", file=sys.stderr)
        shown = progress(self.spec.run, total, state.epoch * self.steps + state.step)
        with shown if distributed.rank() == 0 else nullcontext(_silent) as advance:
            while state.epoch < self.options.epochs:
                saved = started = time.monotonic()
                before = state.images_seen
                for batch in self.batches(state.epoch)[state.step :]:
                    loss = self.step(batch)
                    now = time.monotonic()
                    measured = [entry["val_mr"] for entry in state.curve if "val_mr" in entry]
                    mr = f"val mR {measured[-1]:.2f}  " if measured else ""
                    speed = (state.images_seen - before) / (now - started)
                    advance(1, f"epoch {state.epoch + 1}  loss {loss:.3f}  {mr}{speed:.0f} pairs/s")
                    if distributed.broadcast(now - saved) > SAVE_EVERY:
                        state.save(self.state_file)
                        saved = now
                self.end_epoch()
        return state

    def step(self, batch: Batch) -> float:
        """Do one optimisation step, then add the batch to the memory. Returns the loss.

        Raises:
            UserError: the loss is not finite.
        """
        state, options = self.state, self.options
        step, total = state.epoch * self.steps + state.step, self.steps * options.epochs
        own = batch.rows(self.shares.rows(len(batch.images)))
        ids, info = self.pair_ids(batch), StepInfo(step, total)
        self.method.train()
        attempt = partial(self._gradients, own, ids, info)
        losses, image_items, text_items = (
            within_memory(attempt, state, self.spec.run, len(own.images)) if self.repeat else attempt()
        )
        for group in state.optimizer.param_groups:
            group["lr"] = options.lr * group["rate"] * schedule(step, total, options.warmup)
        distributed.average_gradients(self.method.parameters())
        nn.utils.clip_grad_norm_(self.method.parameters(), options.grad_clip)
        state.optimizer.step()
        self._average()
        if state.memory is not None:
            state.memory.enqueue(image_items, text_items, ids)
        if isinstance(state.memory, Bank) and state.memory.due():
            batches, precision = self.bank_batches(step + 1), options.precision
            fill(
                state.memory, self.method, self.inputs, precision, batches, lambda b: (self._texts(b), self.pair_ids(b))
            )
        for name, value in losses.items():
            state.loss[name] = state.loss.get(name, 0.0) + value.item()
        state.step += 1
        state.images_seen += len(batch.images)
        return torch.stack(list(losses.values())).sum().item()

    def _gradients(self, own: Batch, ids: PairIds, step: StepInfo) -> tuple[dict[str, Tensor], Items, Items]:
        """Replace the gradients by those of a batch, of which this process encodes its own pairs.

        Returns:
            The losses and the whole batch's items of images and texts, all detached.
        """
        state = self.state
        state.optimizer.zero_grad()
        texts = self._texts(own)
        encoding = Encoding(self.method, self.inputs, self.options.precision, own, texts, state.micro_batch)
        image_items, text_items = (self.shares.gather(full_precision(items)) for items in encoding.items())
        losses = self.method.losses(image_items, text_items, ids, state.memory, step)
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss of {self.spec.run} is {loss.item()} in epoch {state.epoch + 1}; lower training.lr"
            )
        loss.backward()
        encoding.backward()
        return detached(losses), detached(image_items), detached(text_items)

    def _texts(self, batch: Batch) -> list[str]:
        pairs, drawn = self.pairs, zip(batch.captions, batch.prompted, strict=True)
        return [(pairs.prompts if prompted else pairs.texts)[caption] for caption, prompted in drawn]

    def pair_ids(self, batch: Batch) -> PairIds:
        """The pair ids of the batch, on the training device."""
        text_ids = torch.tensor([self.text_ids[self.pairs.texts[caption]] for caption in batch.captions])
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(self.pairs.labels[batch.images])
        return PairIds(images.to(device()), text_ids.to(device()), labels.to(device()))

    @torch.no_grad()
    def _average(self) -> None:
        if self.state.average is not None:
            for name, parameter in self.state.trained.items():
                self.state.average[name].lerp_(parameter, 1 - self.options.ema)

    def end_epoch(self) -> None:
        """Add the epoch to the curve, validate if due and keep the best weights, then save the state."""
        state = self.state
        losses = {name: round(value / self.steps, 6) for name, value in sorted(state.loss.items())}
        entry: dict[str, Any] = {"epoch": state.epoch + 1, "loss": losses}
        if isinstance(state.memory, Bank) and (age := state.memory.staleness()) is not None:
            entry["bank_age"] = round(age, 2)
        if (state.epoch + 1) % self.options.validate_every == 0 or state.epoch + 1 == self.options.epochs:
            weights = state.snapshot()
            mr = self.validate(weights)
            if mr > state.best_mr:
                state.best, state.best_epoch, state.best_mr = weights, state.epoch + 1, mr
            entry["val_mr"] = round(mr, 4)
        state.curve.append(entry)
        state.epoch, state.step, state.loss = state.epoch + 1, 0, {}
        state.save(self.state_file)

    def validate(self, weights: dict[str, Tensor]) -> float:
        """Validation mR in percent of these weights."""
        current = {name: parameter.detach().clone() for name, parameter in self.state.trained.items()}
        load_tensors(self.state.trained, weights, "the weights to validate")
        found = validation_mr(self.method, self.inputs, self.pairs, self.spec)
        load_tensors(self.state.trained, current, "the current weights")
        return found


def _silent(count: int, note: str = "") -> None:
    """A progress bar that shows nothing, because another process shows the progress."""
