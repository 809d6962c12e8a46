"""Settings of a run's optimisation and training budget, and of profiling."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmer.config.base import BatchSize, Distinct, Fraction, Model, Name, Positive, Precision, Rate, Several, Threads

MicroBatch = Annotated[int, Field(ge=1, le=65_536)]
Steps = Annotated[int, Field(ge=1, le=10_000)]


class Training(Model):
    """Optimisation (AdamW, linear warm-up, cosine decay) and training budget of a run."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    epoch_of: Literal["pairs", "images"] = Field(
        default="pairs", description="an epoch shows every image-caption pair once, or every image once"
    )
    batch_size: BatchSize = 256
    micro_batch: MicroBatch | None = Field(
        default=None,
        description="pairs that each process encodes at once, with the gradients of the whole batch; fewer need less "
        "memory, but what back-propagates is encoded twice; null: all of them",
    )
    lr: Annotated[float, Field(gt=0, le=10)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    warmup: Fraction = Field(default=0.1, description="share of the steps in which the learning rate rises")
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    ema: Rate = Field(
        default=0.0,
        description="decay of the exponential moving average of the weights, which is validated and saved; 0: validate "
        "and save the weights themselves",
    )
    train_images: Annotated[int, Field(ge=2, le=10_000_000)] | None = Field(
        default=None,
        description="number of train images to use: the first ones in a fixed order, without validation and excluded "
        "images of the seed; null: all",
    )
    precision: Precision = Field(
        default="float32",
        description="precision of the method's encoders in training, validation and test, on every device; losses and "
        "scores are computed in float32, frozen towers in the precision of their backbone",
    )
    inputs: Literal["stored", "online"] | None = Field(
        default=None,
        description="stored: read frozen features from the store; online: compute from pixels at every step; null: "
        "stored if the method can read stored features",
    )
    augmentation: Literal["none", "crop_flip"] = Field(
        default="none", description="crop_flip: RandomResizedCrop(0.8-1) and horizontal flip, online inputs only"
    )
    validate_every: Positive = Field(
        default=1, description="number of epochs between validations; the last epoch is always validated"
    )
    validation_images: Positive | None = Field(
        default=None, description="size of the fixed subsample of validation images; null: validate on all"
    )
    threads: Threads = Field(default=2, description="torch threads per process; on a CPU they affect the result")
    processes: Threads = Field(
        default=1, description="processes that share every batch, each on its own GPU if there are GPUs"
    )

    @model_validator(mode="after")
    def _a_pair_each(self) -> Self:
        if self.processes > self.batch_size:
            raise ValueError(f"processes: {self.processes} is more than the batch_size of {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _stored_has_no_crops(self) -> Self:
        if self.inputs != "online" and self.augmentation != "none":
            raise ValueError(
                f"augmentation: {self.augmentation} needs inputs: online; stored features have fixed pixels"
            )
        return self


class StepOptions(Model):
    """How memory, arithmetic and speed of a training step are measured (Table 3)."""

    batches: tuple[BatchSize, BatchSize] = Field(
        default=(2, 4),
        strict=False,  # JSON and YAML have lists only
        description="two batch sizes; the bytes kept for the backward pass are an affine function of the batch size",
    )
    timed: Literal["both", "larger"] = Field(
        default="both", description="batch sizes at which peak memory and speed are measured; larger halves the time"
    )
    warmup: Steps = Field(default=1, description="untimed steps per method and round, before the timed ones")
    steps: Steps = Field(default=4, description="timed steps per method and round")
    rounds: Steps = Field(default=3, description="timing rounds; each round times all methods one after the other")
    settings: Several[Literal["paper_like", "today"]] = Field(
        default=["paper_like", "today"],
        description="paper_like: float32, plain attention, 77 tokens; today: bfloat16 on a GPU, fused attention, 32 "
        "tokens, which is the longest text of a batch of 256",
    )
    threads: Threads = Field(default=2, description="torch threads of the measurement")

    @property
    def timed_batches(self) -> set[int]:
        """Batch sizes at which peak memory and speed are measured."""
        return set(self.batches) if self.timed == "both" else {max(self.batches)}

    @model_validator(mode="after")
    def _batches_differ(self) -> Self:
        if self.batches[0] == self.batches[1]:
            raise ValueError(f"batches {list(self.batches)} must be two different sizes")
        return self


class ProfileOptions(StepOptions):
    """Settings of the profiles of all backbones."""

    count_only: Distinct[Name] = Field(
        default=[],
        description="backbones that are too large to time: measure only parameters, kept bytes and arithmetic",
    )
    stored: Distinct[str] = Field(
        default=[],
        description="runs, or patterns such as lite.*, whose step reads stored features; all others run the towers",
    )
