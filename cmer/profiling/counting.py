"""Multiply-accumulates of a run's parts, from shapes alone where the towers are large."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cmer.backbones.base import Backbone, Features, Tokens
from cmer.backbones.build import build as build_backbone
from cmer.config.backbones import BackboneOptions, FeatureOptions
from cmer.config.experiment import Config
from cmer.config.methods import MethodOptions
from cmer.config.runs import Run
from cmer.losses.memory import PairIds
from cmer.methods.base import Method, StepInfo
from cmer.methods.build import build, context_of
from cmer.methods.items import select
from cmer.profiling.measure import flop_counter
from cmer.profiling.step import TEXT_LENGTHS, padded, plain_attention, synthetic_pairs

TOKENS = TEXT_LENGTHS["today"]
"""Tokens per text: the longest text of a training batch, to which the whole batch is padded."""
SIZES = (2, 3)
"""Batch sizes at which a step is computed where it is not counted from shapes."""


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of matrix products and convolutions, each for one image, text or pair.

    Attributes:
        image: encoding an image at test; from its frozen features, for a method that reads them.
        text: encoding a text at test, likewise.
        score: scoring an image against a text.
        frozen_image: the frozen tower's forward pass of an image, for a method that reads its features, otherwise 0.
        frozen_text: that of a text.
        forward: a training pair up to the losses, without the frozen towers whose features are read; 0 if the method
            trains nothing.
        backward: a training pair after the losses.
    """

    image: float
    text: float
    score: float
    frozen_image: float
    frozen_text: float
    forward: float
    backward: float


class Towers:
    """A backbone without weights, and the cost of its forward passes.

    Large towers are on torch's meta device: they have shapes and no values. Small ones are on the CPU.
    """

    def __init__(self, options: BackboneOptions) -> None:
        self.options, self.device = options, torch.device("meta" if options.gpu else "cpu")
        with self.device:
            self.backbone: Backbone = build_backbone(options.without_weights())

    @cached_property
    def image(self) -> float:
        """Multiply-accumulates of an image's forward pass."""
        side = self.backbone.preprocess.size
        with torch.no_grad(), _Count() as counted:
            self.backbone.encode_images(torch.randn(1, 3, side, side, device=self.device))
        return counted.macs

    @cached_property
    def text(self) -> float:
        """Multiply-accumulates of a text's forward pass."""
        with torch.no_grad(), _Count() as counted:
            self.backbone.encode_texts(_tokens(self.backbone, 1, self.device))
        return counted.macs


class Counter:
    """Counts the parts of the runs of a config; runs with equal settings are counted once.

    Args:
        config: the experiment.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._towers: dict[str, Towers] = {}
        self._found: dict[tuple[object, ...], Macs] = {}

    def towers(self, backbone: str) -> Towers:
        """The towers of a backbone of the config."""
        if backbone not in self._towers:
            self._towers[backbone] = Towers(self.config.backbones[backbone])
        return self._towers[backbone]

    def macs(self, run: Run) -> Macs:
        """The cost of a run's parts.

        Raises:
            UserError: the method does not support the backbone.
        """
        key = (run.backbone, run.method, run.options.model_dump_json(), run.training.batch_size)
        if key not in self._found:
            self._found[key] = self._count(run)
        return self._found[key]

    def _count(self, run: Run) -> Macs:
        towers = self.towers(run.backbone) if run.backbone else None
        parts, copies = Parts(run.method, run.options, towers), run.options.copies
        forward = backward = 0.0
        if run.options.trains:
            member = parts if copies == 1 else Parts(run.method, run.options.alone(), towers)
            forward, backward = (copies * cost for cost in member.training(run.training.batch_size))
        image, text, score = parts.test()
        reads = towers is not None and run.options.image_input == "features"
        return Macs(
            image=image,
            text=text,
            score=score,
            frozen_image=towers.image if towers and reads else 0.0,
            frozen_text=towers.text if towers and run.options.text_input == "features" else 0.0,
            forward=forward,
            backward=backward,
        )


class Parts:
    """A method without weights, and inputs for it.

    Args:
        name: name of the method.
        options: its settings.
        towers: the backbone; None for a method with its own towers.
        features: the blocks that the method reads; None: those of the backbone's settings.
    """

    def __init__(
        self, name: str, options: MethodOptions, towers: Towers | None, features: FeatureOptions | None = None
    ) -> None:
        self.options, self.device = options, towers.device if towers else torch.device("cpu")
        # Methods change the backbone that they run.
        self.backbone = deepcopy(towers.backbone) if towers else None
        blocks = features or (towers.options.features if towers else FeatureOptions())
        with self.device:
            context = context_of(options, self.backbone, blocks, [], seed=0)
            self.method: Method = build(name, options.without_weights(), context)

    def images(self, size: int) -> Features | Tensor:
        """Inputs of `size` images."""
        if self.options.image_input == "features":
            assert self.backbone is not None
            shapes = self.backbone.shapes
            blocks = {b: (shapes.blocks[b].tokens, shapes.blocks[b].width) for b in self.method.image_blocks}
            made = {b: torch.randn(size, *shape, device=self.device) for b, shape in blocks.items()}
            return Features(torch.randn(size, shapes.image_dim, device=self.device), made)
        preprocess = self.backbone.preprocess if self.backbone else self.method.preprocess
        return torch.randn(size, 3, preprocess.size, preprocess.size, device=self.device)

    def texts(self, size: int) -> Features | Tokens:
        """Inputs of `size` texts of `TOKENS` tokens."""
        if self.options.text_input == "tokens":
            return _tokens(self.backbone or self.method, size, self.device)
        assert self.backbone is not None
        shapes, mask = self.backbone.shapes, torch.ones(size, TOKENS, dtype=torch.bool, device=self.device)
        made = {
            b: torch.randn(size, TOKENS, shapes.text_blocks[b].width, device=self.device)
            for b in self.method.text_blocks
        }
        return Features(torch.randn(size, shapes.text_dim, device=self.device), made, mask)

    def training(self, batch_size: int) -> tuple[float, float]:
        """Multiply-accumulates per pair up to the losses, and after them.

        Without values to compute, the batch has its own size. Otherwise two small batches give the cost per pair and
        that per score, which add up to the cost of the batch.
        """
        if self.device.type == "meta":
            forward, backward = self._step(batch_size)
            return forward / batch_size, backward / batch_size
        small, large = SIZES
        scores = [self.options.scored_pairs(size) for size in (small, large, batch_size)]
        per_pair = []
        for low, high in zip(self._step(small), self._step(large), strict=True):
            of_score = (high / large - low / small) / (scores[1] / large - scores[0] / small)
            per_pair.append(low / small + of_score * (scores[2] / batch_size - scores[0] / small))
        return per_pair[0], per_pair[1]

    def _step(self, size: int) -> tuple[float, float]:
        method = self.method.train()
        ids = torch.arange(size, device=self.device)
        with self.device:
            memory = method.memory(size)
        images, texts = self.images(size), self.texts(size)
        with self._masks(), _Count() as counted:
            items = method.encode_images(images), method.encode_texts(texts)
            losses = method.losses(*items, PairIds(ids, ids, torch.zeros_like(ids)), memory, StepInfo(0, 1))
            forward = counted.macs
            torch.stack(list(losses.values())).sum().backward()
        return forward, counted.macs - forward

    def _masks(self) -> AbstractContextManager[object]:
        """On the meta device masks have no values; they are those of texts without padding."""
        return AllReal() if self.device.type == "meta" else nullcontext()  # type: ignore[no-untyped-call]

    def test(self) -> tuple[float, float, float]:
        """Multiply-accumulates of encoding an image and a text, and of scoring a pair."""
        method, size = self.method.eval(), SIZES[0]
        found = []
        with torch.inference_mode(), self._masks():
            with _Count() as counted:
                images = method.scored_part(method.encode_images(self.images(size)))
            found.append(counted.macs / size)
            with _Count() as counted:
                texts = method.scored_part(method.encode_texts(self.texts(size)))
            found.append(counted.macs / size)
            with _Count() as counted:
                method.score(images, select(texts, slice(0, 1)))
        return found[0], found[1], counted.macs / size


class AllReal(TorchDispatchMode):
    """Takes every element of a mask for true, so that what it selects has a shape without values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Give `nonzero` of a mask and rows of a tensor at a mask the shapes that they have then."""
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty(args[0].numel(), args[0].ndim, dtype=torch.int64)
        if func is torch.ops.aten.index.Tensor and [each.dtype for each in args[1]] == [torch.bool]:
            selected, (mask,) = args
            return selected.new_empty(mask.numel(), *selected.shape[mask.ndim :])
        return func(*args, **(kwargs or {}))


class _Count:
    """Context that counts multiply-accumulates, with attention as matrix products."""

    def __init__(self) -> None:
        self._counter, self._attention = flop_counter(), plain_attention()

    @property
    def macs(self) -> float:
        return self._counter.get_total_flops() / 2

    def __enter__(self) -> _Count:
        self._attention.__enter__()
        self._counter.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._counter.__exit__(*error)
        self._attention.__exit__(None, None, None)


def _tokens(tower: Backbone | Method, size: int, device: torch.device) -> Tokens:
    """Texts of equal length, of which a few repeat, because tokenising takes longer than counting."""
    texts = synthetic_pairs(SIZES[1]).texts[: SIZES[1]]
    context = tower.tokenize(["a " * TOKENS]).ids.shape[1]
    tokens = padded(tower.tokenize(texts), min(TOKENS, context))
    rows = torch.arange(size) % len(texts)
    return Tokens(tokens.ids[rows], tokens.mask[rows]).to(device)
