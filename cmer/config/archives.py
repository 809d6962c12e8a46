"""Settings of archives: folders of images that the workflow embeds in shards, for `cmer search` and `cmer serve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from cmer.config.backbones import Runtime
from cmer.config.base import Model, Text, Threads, require_known
from cmer.config.datasets import Raster
from cmer.config.runs import Run

Side = Annotated[int, Field(ge=32, le=16_384)]


class Tiling(Model):
    """How large scenes are cut: an image with a side above `tile` becomes overlapping tiles of at most that side."""

    tile: Side = 640
    overlap: Annotated[int, Field(ge=0, le=8192)] = 64

    @model_validator(mode="after")
    def _moves_on(self) -> Self:
        if 2 * self.overlap > self.tile:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of tile ({self.tile})")
        return self


class Listing(Model):
    """What the list of an archive's images depends on."""

    folder: Text = Field(
        description="folder of the images, at the same path on all machines; environment variables are expanded"
    )
    labels: Text | None = Field(
        default=None,
        description="CSV with the columns file and label; null: labels are the names of the images' folders",
    )
    shards: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1, description="parts that are embedded by jobs of their own; a file belongs to a part by its name"
    )


class ShardSpec(Model):
    """What the embedding of a shard depends on besides its images and the model."""

    folder: Text
    shards: Annotated[int, Field(ge=1)]
    tiling: Tiling = Field(default=Tiling(), description="how large scenes are cut")
    raster: Raster | None = Field(
        default=None, description="conversion to RGB of images that do not have three 8-bit bands"
    )
    threads: Threads = Field(default=2, description="threads of the embedding of a shard")
    runtime: Runtime | None = Field(
        default=None, description="what runs the frozen towers; null: as in the run. OpenVINO is faster on a CPU"
    )


class ArchiveOptions(Listing, ShardSpec):
    """An archive of images, embedded in shards by a run of this config or by another model."""

    run: str | None = Field(
        default=None, description="run of this config, with one dataset, whose checkpoint of the first seed embeds"
    )
    checkpoint: Text | None = Field(
        default=None, description="in place of `run`: a checkpoint's file, or a model's name as for `cmer index --run`"
    )
    store: Text = Field(description="folder or URL of the archive, e.g. s3://bucket/archive.lance")

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.run is None) == (self.checkpoint is None):
            raise ValueError("needs either `run` or `checkpoint`")
        return self

    def places(self) -> list[str]:
        """The user's folder and file that the archive is made from."""
        return [self.folder, *([self.labels] if self.labels else [])]

    def require_run(self, where: str, runs: Sequence[Run]) -> None:
        """Raise `ValueError` if the archive's run is not one of `runs`, or has several datasets."""
        if self.run is None:
            return
        require_known(f"{where}.run", [self.run], [run.name for run in runs])
        datasets = next(run.datasets for run in runs if run.name == self.run)
        if len(datasets) > 1:
            raise ValueError(
                f"{where}.run: {self.run} is trained on {', '.join(datasets)}; give the file of one of its "
                "checkpoints as `checkpoint`"
            )
