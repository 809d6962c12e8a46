"""A linear regression as a method, on a dataset in memory: every number of its training can be computed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cmer.config.backbones import FeatureOptions
from cmer.config.base import validate
from cmer.config.methods import MethodOptions, Scoring
from cmer.config.runs import RunSpec
from cmer.data.pairs import Pairs
from cmer.data.sampler import Batch
from cmer.features.inputs import Inputs
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, StepInfo
from cmer.methods.build import build
from cmer.registry import METHOD_OPTIONS, METHODS
from cmer.training.loop import Trainer

MATRIX = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
OFFSET = np.array([1.0, -4.0])
IMAGES, CAPTIONS = 20, 2
SPLITS = np.array(["test", "train", "val", "train", "train"] * 4)
POINTS = np.random.default_rng(0).normal(size=(IMAGES, 3))
TARGETS = POINTS @ MATRIX.T + OFFSET


@METHOD_OPTIONS.register("toy_regression")
class RegressionOptions(MethodOptions):
    own_towers: ClassVar[bool] = True

    loss: Literal["squares", "slope"] = "squares"
    dropout: float = 0.0
    norm: bool = False
    prompt_share: float = 0.0
    remembers: bool = False

    @property
    def scoring(self) -> Scoring:
        return "conditioned"


@METHODS.register("toy_regression")
class Regression(Method):
    """Predicts the target of an image, its point's image under MATRIX and OFFSET, which its captions give exactly.

    `slope` is a loss with gradient 1 for every weight. `modes` notes whether each encoding was in training mode.
    """

    options: RegressionOptions

    def __init__(self, options: RegressionOptions, context: Context) -> None:
        super().__init__(options, context)
        norm = nn.BatchNorm1d(3, affine=False) if options.norm else nn.Identity()
        self.before = nn.Sequential(nn.Dropout(options.dropout), norm)
        self.linear = nn.Linear(3, 2)
        self.modes: list[bool] = []
        self.steps: list[StepInfo] = []

    def encode_images(self, batch: Any) -> Tensor:
        self.modes.append(self.training)
        return self.linear(self.before(batch))

    def encode_texts(self, batch: Any) -> Tensor:
        self.modes.append(self.training)
        return batch

    def score(self, images: Tensor, texts: Tensor) -> Tensor:
        return -torch.cdist(images, texts)

    def memory(self, batch_size: int) -> Log | None:
        return Log() if self.options.remembers else None

    def prompt_share(self) -> float:
        return self.options.prompt_share

    def losses(
        self, images: Any, texts: Any, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        self.steps.append(step)
        if isinstance(memory, Log):
            memory.events.append(("losses", batch.images.tolist(), images))
        if self.options.loss == "slope":
            return {"slope": self.linear.weight.sum() + self.linear.bias.sum()}
        return {"squares": (images - texts).square().sum(dim=1).mean()}


class Log(Memory):
    """Notes in which order batches are used and added; its state is the images of all added batches."""

    def __init__(self) -> None:
        self.events: list[tuple[str, list[int], Tensor]] = []
        self.past: list[list[int]] = []

    def enqueue(self, images: Tensor, texts: Tensor, batch: PairIds) -> None:
        self.events.append(("enqueue", batch.images.tolist(), images))
        self.past.append(batch.images.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"past": self.past}

    def load_state_dict(self, state: dict[str, Any]) -> object:
        self.past = list(state["past"])
        return None

    def to(self, device: torch.device) -> Log:
        return self


@dataclass
class Given:
    """Inputs that note what they are asked for."""

    images: list[tuple[list[int], list[int], bool]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def inputs(self) -> Inputs:
        return Inputs(self._images, self._texts)

    def _images(self, images: np.ndarray, views: np.ndarray, training: bool) -> Tensor:
        self.images.append((images.tolist(), views.tolist(), training))
        return torch.tensor(POINTS[images], dtype=torch.float32)

    def _texts(self, texts: Any) -> Tensor:
        self.texts += texts
        return torch.tensor(np.array([TARGETS[image_of(text)] for text in texts]), dtype=torch.float32)


def image_of(text: str) -> int:
    return int(text.split()[-1]) // CAPTIONS


def dataset() -> Pairs:
    """Twenty images, those of a split scattered over the ids, with two captions each that name their own id."""
    captions = np.arange(CAPTIONS * IMAGES)
    train, val, test = (np.flatnonzero(name == SPLITS) for name in ("train", "val", "test"))
    return Pairs(
        files=[""] * IMAGES,
        sha256=[""] * IMAGES,
        label_names=["pond"],
        labels=np.zeros(IMAGES, np.int64),
        caption_image=captions // CAPTIONS,
        texts=[f"caption {c}" for c in captions],
        prompts=[f"pond. caption {c}" for c in captions],
        train_images=train,
        val_images=val,
        test_images=test,
        official_train=train,
    )


def regression(options: dict[str, Any], **training: Any) -> RunSpec:
    settings = {"epochs": 3, "batch_size": 4, "lr": 0.1, "threads": 1, "inputs": "online"} | training
    data = {"run": "toy", "dataset": "toy", "seed": 0, "method": "toy_regression", "options": options}
    return validate(RunSpec, data | {"training": settings}, "spec")


def trainer(run: RunSpec, state_file: Any, given: Given | None = None) -> Trainer:
    method = build(run.method, run.options, Context(None, FeatureOptions(), None, [], run.seed))
    return Trainer(method, (given or Given()).inputs(), dataset(), run, state_file)


class Interrupted(Exception):
    """Stands for a kill."""


def interrupt(made: Trainer, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Run the training until it is interrupted, after this many steps."""
    step, left = made.step, iter(range(after))

    def interrupted(batch: Batch) -> float:
        if next(left, None) is None:
            raise Interrupted
        return step(batch)

    monkeypatch.setattr(made, "step", interrupted)
    with pytest.raises(Interrupted):
        made.run()
