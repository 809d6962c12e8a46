"""The training budget and optimisation of a run, and how the cost of a training step is measured."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import BatchSize, Fraction, Model, Name, Positive


class Training(Model):
    """Optimisation and the budget (AdamW, linear warm-up, cosine)."""

    epochs: Positive = 20
    epoch_of: Literal["pairs", "images"] = Field(
        default="pairs", description="an epoch shows every image-caption pair once, or every image once"
    )
    batch_size: BatchSize = 256
    lr: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = Field(default=0.1, description="share of all steps")
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="decay of the weight average that is validated and kept; 0 keeps the weights"
    )
    train_images: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="train on this many images, the same for every run and seed; null: on all"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="of a GPU's training step; a CPU computes in float32"
    )
    inputs: Literal["stored", "online"] | None = Field(
        default=None,
        description="stored: frozen features from the store; online: pixels at every step; null: stored where the "
        "method can read it",
    )
    augmentation: Literal["none", "crop_flip"] = Field(
        default="none", description="crop_flip: RandomResizedCrop(0.8-1) and horizontal flip, online only"
    )
    validate_every: Positive = Field(default=1, description="epochs between validations; the last always validates")
    validation_images: Positive | None = Field(
        default=None, description="validate on this many images, always the same; null: on all"
    )
    threads: Positive = Field(default=2, description="torch threads of a process: part of the result on a CPU")
    processes: Positive = Field(
        default=1, description="that share every batch, each on a GPU of its own where there is one"
    )

    @model_validator(mode="after")
    def _a_pair_each(self) -> Self:
        if self.processes > self.batch_size:
            raise ValueError(f"processes: {self.processes} cannot share a batch_size of {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _stored_has_no_crops(self) -> Self:
        if self.inputs != "online" and self.augmentation != "none":
            raise ValueError(
                f"augmentation: {self.augmentation} needs inputs: online; stored features show fixed pixels"
            )
        return self


class StepOptions(Model):
    """How memory, arithmetic and speed of a training step are measured (Table 3)."""

    batches: tuple[BatchSize, BatchSize] = Field(
        default=(2, 4), description="two batch sizes; what is kept for the backward pass is affine in them"
    )
    steps: Positive = Field(default=3, description="timed steps a round")
    rounds: Positive = Field(default=3, description="in every round each method is timed in turn")
    settings: list[Literal["paper_like", "today"]] = Field(
        default=["paper_like", "today"],
        description="paper_like: float32, plain attention, 77 tokens; today: bfloat16 on a GPU, fused attention, "
        "texts cut at the batch's longest",
    )
    threads: Positive = 2

    @model_validator(mode="after")
    def _batches_differ(self) -> Self:
        if self.batches[0] == self.batches[1]:
            raise ValueError(f"batches {list(self.batches)} must be two different sizes")
        return self


class ProfileOptions(StepOptions):
    """The same of all backbones."""

    count_only: list[Name] = Field(
        default=[], description="backbones too large to time: parameters, kept bytes and arithmetic alone"
    )
