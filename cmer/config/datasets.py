"""Settings of datasets: a user's folder, drawn scenes or a published dataset, each with a rule for image labels."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from cmer.config.base import Distinct, Model, Positive, Seed, Several, Text
from cmer.config.reading import parse_yaml
from cmer.config.sources import LocalSource, Source

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Percentage = Annotated[float, Field(ge=0.0, le=100.0)]
Limit = Annotated[float, Field(ge=-1e12, le=1e12)]
"""A limit of the values of pixels, which have at most 32 bits, or are fractions."""
Leak = Literal["similar_images", "twins", "shared_captions"]

CARDS = resources.files("cmer.data") / "cards"
MAX_PIXELS = 1e9
"""Maximum number of pixels that are drawn of a class of the demo, which has ten."""


def _require_a_name(text: str) -> str:
    if not any(map(str.isalnum, text)):
        raise ValueError(f"{text!r} names no class; a name has a letter or digit")
    return text


ClassName = Annotated[str, AfterValidator(_require_a_name)]


class PrefixLabels(Model):
    """The label is the part of the file name before the first underscore; a name without underscore has no label."""

    rule: Literal["prefix"] = "prefix"


class ListLabels(Model):
    """One `<class>.txt` per class lists its images; images on no list get their file-name prefix as label."""

    rule: Literal["lists"]
    folder: Text = Field(description="folder of the lists, relative to the dataset's root")


class IdLabels(Model):
    """The label of `<n>.tif` is `classes[(n - 1) // per_class]` (UCM-Captions)."""

    rule: Literal["id"]
    classes: Several[ClassName]
    per_class: Positive = 100


class ColumnLabels(Model):
    """The label is a field of the image's entry in the annotation file."""

    rule: Literal["column"] = "column"
    column: Text = "label"


class FolderLabels(Model):
    """The label is the first folder in an image's path: "forest" for forest/2020/1.tif."""

    rule: Literal["folder"] = "folder"


class NoLabels(Model):
    """The dataset has no scene labels: no prompts, and the queue filters by image only."""

    rule: Literal["none"]


LabelRule = Annotated[
    PrefixLabels | ListLabels | IdLabels | ColumnLabels | FolderLabels | NoLabels, Field(discriminator="rule")
]


class DatasetOptions(Model):
    """Settings that all datasets have in common, whatever their source."""

    kind: ClassVar[Literal["folder", "demo", "published"]]

    title: Text = Field(description="name as printed in the tables, e.g. RSITMD")
    template: Annotated[str, Field(max_length=1000)] = Field(
        default="{label}. {caption}", description="scene prompt (Eq. 14-15)"
    )
    on_bad: Literal["stop", "drop"] = Field(
        default="stop",
        description="what to do about blank captions, missing or undecodable images and missing labels: stop with a "
        "report, or drop the captions and images",
    )
    merge: dict[ClassName, ClassName] = Field(
        default={}, description="classes to merge: class → class that replaces it"
    )
    exclude: Distinct[Leak] = Field(
        default=[], description="leaks of val or test images to exclude from training: which kinds"
    )

    @model_validator(mode="after")
    def _template_has_both(self) -> Self:
        if not 0 <= self.template.find("{label}") < self.template.find("{caption}"):  # towers truncate long texts
            raise ValueError(f"template {self.template!r} must contain {{label}} and, after it, {{caption}}")
        return self

    def places(self) -> list[str]:
        """Folders and files of the user that the dataset is read from."""
        return []


class SplitFractions(Model):
    """Reproducible random split of images whose annotations name no split."""

    val: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="share of validation images; 0: use a tenth of the train images, drawn separately for every seed",
    )
    test: Share = 0.1
    seed: Seed = 0

    @model_validator(mode="after")
    def _some_train(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val ({self.val}) and test ({self.test}) must sum to less than 1 to leave train images")
        return self


class Stretch(Model):
    """Which values become black (`low`) and white (`high`)."""

    low: float
    high: float

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.high - self.low < self.least:
            raise ValueError(f"low ({self.low}) must be below high ({self.high}) by at least {self.least:.3g}")
        return self

    @property
    def least(self) -> float:
        """Smallest distance between `low` and `high`; closer ones do not differ in float32."""
        return max(1e-9 * max(abs(self.low), abs(self.high)), 1e-30)


class PercentileStretch(Stretch):
    """Stretch between two percentiles of each band of each image, computed over its pixels with data."""

    kind: Literal["percentile"] = "percentile"
    low: Percentage = 2.0
    high: Percentage = 98.0

    @property
    def least(self) -> float:
        """See `Stretch`; between closer percentiles, nearly every pixel would be black or white."""
        return 0.1 - 1e-9  # 98.1 - 98 is less than 0.1


class RangeStretch(Stretch):
    """Stretch between two fixed values, the same for all images."""

    kind: Literal["range"]
    low: Limit
    high: Limit


class Raster(Model):
    """How images that do not have three 8-bit bands are converted to RGB."""

    bands: tuple[Positive, Positive, Positive] = Field(
        strict=False,  # JSON and YAML have lists only
        description="numbers of the red, green and blue band, counted from 1",
    )
    stretch: Annotated[PercentileStretch | RangeStretch, Field(discriminator="kind")] = PercentileStretch()


class FolderDataset(DatasetOptions):
    """A user's folder with images, which are used in place, and captions in one of several layouts."""

    kind: ClassVar[Literal["folder", "demo", "published"]] = "folder"

    source: Literal["folder"]
    root: Text = Field(description="folder; environment variables like ${CMER_DATA_ROOT} are expanded")
    annotations: Annotated[str, Field(pattern=r"\.(json|csv|jsonl)$")] | None = Field(
        default="dataset.json",
        description="annotation file: .json in the published layout, .csv or .jsonl; null: class folders, captioned by "
        "`caption`",
    )
    images: str = Field(default="images", description="folder of the images, relative to the root")
    caption: Annotated[str, Field(pattern=r"\{label\}")] = Field(
        default="an overhead image of {label}",
        description="caption of every image in class folders without annotations",
    )
    labels: LabelRule | None = Field(
        default=None,
        description="where scene labels come from; null: file-name prefixes for a .json, column `label` for a .csv or "
        ".jsonl, class folders without annotations",
    )
    split: SplitFractions = SplitFractions()
    raster: Raster | None = Field(
        default=None, description="conversion to RGB of images that do not have three 8-bit bands"
    )

    def places(self) -> list[str]:
        """See `DatasetOptions`."""
        lists = [self.labels.folder] if isinstance(self.labels, ListLabels) else []
        inside = [self.annotations or "", self.images, *lists]
        return [self.root, *(str(Path(self.root) / place) for place in inside)]


class DemoDataset(DatasetOptions):
    """Overhead scenes drawn by the project, written in the published layout."""

    kind: ClassVar[Literal["folder", "demo", "published"]] = "demo"

    source: Literal["demo"]
    title: Text = "demo"
    seed: Seed = 0
    images_per_class: Annotated[int, Field(ge=5, le=10_000)] = 30
    size: Annotated[int, Field(ge=32, le=2048)] = 128
    labels: LabelRule = PrefixLabels()

    @model_validator(mode="after")
    def _drawn_in_a_day(self) -> Self:
        if self.images_per_class * self.size**2 > MAX_PIXELS:
            raise ValueError(
                f"images_per_class: {self.images_per_class:,} images of {self.size} x {self.size} pixels are more than "
                f"{MAX_PIXELS:,.0f} pixels per class; draw fewer or smaller ones"
            )
        return self


def published_names() -> list[str]:
    """Names of the published datasets that the project has a card for."""
    return sorted(file.name.removesuffix(".yaml") for file in CARDS.iterdir() if file.name.endswith(".yaml"))


@cache
def card_settings(name: str) -> dict[str, Any]:
    """The card of a published dataset, as written in its file."""
    found: dict[str, Any] = parse_yaml((CARDS / f"{name}.yaml").read_text(encoding="utf-8"), f"the card of {name}")
    return found


class PublishedDataset(DatasetOptions):
    """A published dataset: fetched, or a copy in a user's folder, and verified by its fingerprint."""

    kind: ClassVar[Literal["folder", "demo", "published"]] = "published"

    source: Text = Field(description="name of a published dataset's card: rsicd, rsitmd, ucm, sydney, …")
    title: Text = Field(default="", description="name as printed in the tables; default: the title on the card")
    root: Text | None = Field(
        default=None, description="folder of a copy to use in place; null: fetch the dataset from its sources"
    )
    sources: Annotated[list[Source], Field(min_length=1)] | None = Field(
        default=None, description="sources to fetch from, tried in order; null: those on the dataset's card"
    )

    @model_validator(mode="before")
    @classmethod
    def _title_of_the_card(cls, data: Any) -> Any:
        if isinstance(data, dict) and "title" not in data and data.get("source") in published_names():
            return data | {"title": card_settings(data["source"])["title"]}
        return data

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.source not in published_names():
            known = ", ".join(["demo", "folder", *published_names()])
            raise ValueError(f"unknown source {self.source!r}; known are {known}")
        if self.root is not None and self.sources is not None:
            raise ValueError("give either `root` (a copy to use in place) or `sources` (to fetch one), not both")
        return self

    def places(self) -> list[str]:
        """See `DatasetOptions`."""
        local = [source.path for source in self.sources or [] if isinstance(source, LocalSource)]
        return local if self.root is None else [self.root]


def _kind(data: Any) -> str | None:
    """The kind of model that describes a dataset; None if it has no `source`."""
    if isinstance(data, DatasetOptions):
        return data.kind
    source = data.get("source") if isinstance(data, dict) else None
    return source if source in ("folder", "demo", None) else "published"


Dataset = Annotated[
    Annotated[FolderDataset, Tag("folder")]
    | Annotated[DemoDataset, Tag("demo")]
    | Annotated[PublishedDataset, Tag("published")],
    Discriminator(_kind, custom_error_type="no_source", custom_error_message="the field 'source' is required"),
]
