"""Encoding of a batch in parts, with the gradients of the whole batch (GradCache, Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from cmer.backbones.base import Features, Tokens
from cmer.config.base import Precision
from cmer.data.sampler import Batch
from cmer.errors import UserError
from cmer.features.device import autocast
from cmer.features.inputs import Inputs
from cmer.methods.base import Method
from cmer.methods.items import Items, concatenate

Given = tuple[Features | Tensor, Features | Tokens]
RandomStates = list[Tensor]


@dataclass
class _Part:
    """A part that was encoded without gradients.

    Attributes:
        rows: its rows of the batch.
        given: its inputs; None if they are read again.
        random: states of the random generators before its encoding.
        outputs: outputs of both sides as leaves, to which the losses back-propagate.
    """

    rows: slice
    given: Given | None
    random: RandomStates
    outputs: tuple[Items, Items]


class Encoding:
    """Encodes a batch in parts of at most `size` pairs, and back-propagates through one part at a time.

    The first pass encodes all parts and keeps the activations of the last one only. Heads and losses are computed once,
    on the whole batch. After `loss.backward()`, which reaches the outputs of every part, `backward` encodes each other
    part again with the same random draws, and passes its outputs' gradients on. What frozen towers give is kept between
    the passes, so that they run once per pair; stored inputs are read again. A batch of one part is encoded as if there
    were no parts.

    Args:
        method: method that encodes.
        inputs: inputs of the dataset.
        precision: precision of the encoders.
        batch: the pairs that this process encodes.
        texts: their texts.
        size: most pairs of a part; None: all.
    """

    def __init__(
        self, method: Method, inputs: Inputs, precision: Precision, batch: Batch, texts: Sequence[str], size: int | None
    ) -> None:
        self.method, self.inputs, self.precision, self.batch, self.texts = method, inputs, precision, batch, texts
        step = size or len(texts)
        *self.earlier, self.last = [slice(start, start + step) for start in range(0, len(texts), step)]
        self.parts: list[_Part] = []

    def items(self) -> tuple[Items, Items]:
        """Items of all images and all texts.

        Raises:
            UserError: there are several parts, and a tower of the method standardises over the batch.
        """
        method, inputs, batch = self.method, self.inputs, self.batch
        if not self.earlier:
            with autocast(self.precision):
                images = method.encode_images(inputs.images(batch.images, batch.views, True))
                return images, method.encode_texts(inputs.texts(self.texts))
        for rows in self.earlier:
            self.parts.append(self._without_gradients(rows))
        last = self._outputs(self._given(self.last))
        images, texts = ([part.outputs[side] for part in self.parts] + [last[side]] for side in range(2))
        with autocast(self.precision):
            return method.image_items(concatenate(images)), method.text_items(concatenate(texts))

    def _without_gradients(self, rows: slice) -> _Part:
        given = self._given(rows)
        random = random_states()
        with torch.no_grad():
            outputs = self._outputs(given)
        return _Part(rows, None if self.inputs.stored else given, random, tree_map(_leaf, outputs))

    def _given(self, rows: slice) -> Given:
        images, views = self.batch.images[rows], self.batch.views[rows]
        return self.inputs.images(images, views, True), self.inputs.texts(self.texts[rows])

    def _outputs(self, given: Given) -> tuple[Items, Items]:
        # Autocast of its own: its cache of weights that were cast without gradients must not serve the second pass.
        with autocast(self.precision), ExitStack() as hooks:
            for module in self.method.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    hooks.callback(module.register_forward_pre_hook(self._refuse).remove)
            return self.method.image_outputs(given[0]), self.method.text_outputs(given[1])

    def _refuse(self, module: nn.Module, _inputs: Any) -> None:
        if module.training:
            raise UserError(
                f"{type(self.method).__name__} standardises over the batch within a tower (BatchNorm), so that it "
                "cannot encode in parts: remove training.micro_batch, and lower training.batch_size if memory runs out"
            )

    def backward(self) -> None:
        """Back-propagate through all parts but the last, whose gradients `loss.backward()` has added already."""
        after = random_states()
        while self.parts:
            part = self.parts.pop(0)
            given = self._given(part.rows) if part.given is None else part.given
            restore(part.random)
            outputs = tree_leaves(self._outputs(given))
            pairs = zip(outputs, tree_leaves(part.outputs), strict=True)
            reached = [(output, leaf.grad) for output, leaf in pairs if output.requires_grad and leaf.grad is not None]
            if reached:
                torch.autograd.backward([output for output, _ in reached], [gradient for _, gradient in reached])
        restore(after)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def random_states() -> RandomStates:
    """States of torch's generators: the CPU's and the current GPU's, if there is one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def restore(states: RandomStates) -> None:
    """Restore states of the generators."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
