"""Bytes that a training step keeps, counted from shapes alone: no weights, no values, in seconds for any tower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map

from cmer.backbones.base import Features, Tokens
from cmer.config.backbones import FeatureOptions
from cmer.config.methods import MethodOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import StepInfo
from cmer.methods.items import Items, concatenate
from cmer.profiling.counting import AllReal, Parts, Towers
from cmer.profiling.measure import Live

STATE = 20
"""Bytes per trained parameter beside its weight: gradient, two moments of AdamW, moving average, best weights."""


class Shadow:
    """A method and its backbone as shapes, on a CPU in float32.

    Counts are those of `cmer profile` under `today`: fused attention, and texts of 32 tokens.

    Args:
        name: name of the method.
        options: its settings.
        towers: the backbone.
        features: the blocks that the method reads; None: those of the backbone's settings.

    Raises:
        UserError: the method does not support the backbone.
    """

    def __init__(
        self, name: str, options: MethodOptions, towers: Towers, features: FeatureOptions | None = None
    ) -> None:
        self.parts = Parts(name, options, towers, features)
        assert self.parts.backbone is not None
        self.backbone, self.method = self.parts.backbone, self.parts.method.train()
        self.mode = FakeTensorMode()
        tokens = self.parts.texts(1)
        self._length = tokens.ids.shape[1] if isinstance(tokens, Tokens) else None
        with self.mode:
            _replace([self.backbone, self.method])
        self.parts.device = torch.device("cpu")

    def weight_bytes(self, online: bool) -> int:
        """Bytes of the weights of the method, which include towers that it runs, and of all towers if `online`."""
        modules: list[nn.Module] = [self.method, *([self.backbone] if online else [])]
        tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
        return sum(tensor.nbytes for tensor in tensors.values())

    def state_bytes(self, batch: int) -> int:
        """Bytes of gradients, optimiser, averages and the memory of past batches."""
        memory = self.method.memory(batch)
        return STATE * self.method.count() + sum(tensor.nbytes for tensor in (memory.tensors() if memory else []))

    def feature_bytes(self) -> int:
        """Bytes of a pair's frozen features in float32, as a step on a CPU has them."""
        with self.mode:
            given = [self.parts.images(1), self._texts(1)]
        return sum(
            tensor.nbytes
            for features in given
            if isinstance(features, Features)
            for tensor in (features.pooled, *features.blocks.values())
        )

    def kept_bytes(self, batch: int, micro_batch: int, stored: bool) -> int:
        """Most bytes kept for the backward pass, as `saved_bytes` measures them in a step.

        Args:
            batch: pairs of the batch.
            micro_batch: pairs encoded at once; not less than the batch for a plain step.
            stored: whether features are read again in the second pass, instead of being kept for it.
        """
        with self.mode, AllReal():  # type: ignore[no-untyped-call]
            memory = self.method.memory(batch)
            known = [*self.method.parameters(), *self.method.buffers(), *self.backbone.parameters()]
            live = Live([*known, *self.backbone.buffers(), *(memory.tensors() if memory else [])])
            with saved_tensors_hooks(live.hold, lambda held: held.tensor):
                earlier = batch - min(batch, micro_batch)
                given, items = self._encoded(live, earlier, batch - earlier, stored)
                rows = torch.arange(batch)
                self.method.losses(*items, PairIds(rows, rows, torch.zeros_like(rows)), memory, StepInfo(0, 1))
            del given
        return live.most

    def _encoded(self, live: Live, earlier: int, last: int, stored: bool) -> tuple[Sequence[Any], tuple[Items, Items]]:
        """Items of a batch, of which `earlier` pairs are encoded without activations, and what is kept of these."""
        method = self.method
        if not earlier:
            images = method.encode_images(_watched(live, self.parts.images(last)))
            return (), (images, method.encode_texts(_watched(live, self._texts(last))))
        given = self.parts.images(earlier), self._texts(earlier)
        kept = [] if stored else [_watched(live, each) for each in given]
        with torch.no_grad():
            outputs = [method.image_outputs(given[0]), method.text_outputs(given[1])]
        leaves = tree_map(lambda tensor: tensor.detach().requires_grad_(), outputs)
        images = method.image_outputs(_watched(live, self.parts.images(last)))
        texts = method.text_outputs(_watched(live, self._texts(last)))
        return kept, (
            method.image_items(concatenate([leaves[0], images])),
            method.text_items(concatenate([leaves[1], texts])),
        )

    def _texts(self, size: int) -> Features | Tokens:
        """Inputs of texts; tokens are not made by the tokeniser, which reads values."""
        if self._length is None:
            return self.parts.texts(size)
        ids = torch.zeros(size, self._length, dtype=torch.int64)
        return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))


def _watched(live: Live, given: Any) -> Any:
    if isinstance(given, Features):
        live.watch(given)
    return given


def _replace(modules: Iterable[nn.Module]) -> None:
    """Replace all parameters and buffers by ones without memory; what is shared stays shared."""
    parts = [part for module in modules for part in module.modules()]
    tables: list[dict[str, Any]] = [table for part in parts for table in (part._parameters, part._buffers)]
    old = {id(tensor): tensor for table in tables for tensor in table.values() if tensor is not None}
    new = {name: _empty_like(tensor) for name, tensor in old.items()}
    for table in tables:
        table.update({name: new.get(id(tensor), tensor) for name, tensor in table.items() if tensor is not None})


def _empty_like(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
