"""What an experiment costs before it runs: GPU hours from multiply-accumulates."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from cmer.config.experiment import Config
from cmer.config.protocols import protocols_of
from cmer.config.runs import Run
from cmer.data.cards import fingerprint
from cmer.data.frames import CAPTIONS, IMAGES, read_frame
from cmer.errors import UserError
from cmer.profiling.counting import TOKENS, Counter, Macs
from cmer.progress import progress

TFLOPS = 15.0
"""Sustained TFLOP/s that are assumed: two V100 reached 12 to 17 in the paper's Table 3, by these counts.

That is printed pairs per second, times GMACs per pair of `paper_like`, times two: 16.6 for CLIP-adapter, 11.8 for
CLIP-lora and 13.9 for CMER on ViT-B-16, 17.2, 12.8 and 16.4 on ViT-L-14, 15.5 for CMER on ViT-H-14.
"""

PARTS = ("training", "validation", "test", "extraction")
"""What a run's cost consists of."""


@dataclass(frozen=True)
class Split:
    """Numbers of images and captions."""

    images: int
    captions: int

    def part(self, images: int) -> Split:
        """As many of the images, with their share of the captions."""
        return Split(images, round(self.captions * images / self.images) if self.images else 0)


@dataclass(frozen=True)
class Sizes:
    """The splits of a dataset as trainings see them."""

    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class Price:
    """What a run on a dataset costs, all seeds together; or the extraction of a backbone's features.

    Attributes:
        pairs: training pairs per epoch.
        gmacs_forward: 10^9 multiply-accumulates per training pair up to the losses, with frozen towers that run online.
        gmacs_backward: the same after the losses.
        training: multiply-accumulates of all epochs.
        validation: those of all validations.
        test: those of encoding and scoring the test split under all label protocols.
        extraction: those of extracting features.
    """

    run: str
    dataset: str
    seeds: int
    epochs: int = 0
    pairs: int = 0
    gmacs_forward: float = 0.0
    gmacs_backward: float = 0.0
    training: float = 0.0
    validation: float = 0.0
    test: float = 0.0
    extraction: float = 0.0

    @property
    def macs(self) -> float:
        """All multiply-accumulates."""
        return self.training + self.validation + self.test + self.extraction

    def cells(self, tflops: float) -> dict[str, Any]:
        """The cells of its row: costs in 10^9 multiply-accumulates, and GPU hours."""
        total = {f"{name}_gmacs": getattr(self, name) / 1e9 for name in PARTS}
        given = {name: value for name, value in asdict(self).items() if name not in PARTS}
        rounded = {
            name: float(f"{v:.6g}") if isinstance(v, float) else v
            for name, v in (given | total | {"gpu_hours": gpu_hours(self.macs, tflops)}).items()
        }
        return rounded | {"tflops": tflops}


def gpu_hours(macs: float, tflops: float) -> float:
    """Hours of a GPU with this throughput; a multiply-accumulate is two operations."""
    return 2 * macs / (tflops * 1e12) / 3600


def prices(config: Config) -> list[Price]:
    """The cost of every run on every dataset, then of every extraction of features.

    Not counted: captioning and runs that read its texts, reranking, profiles, decoding of images, and all arithmetic
    beside matrix products and convolutions. Equal captions count each time, although they are encoded once at test.

    Raises:
        UserError: a method does not support its backbone, or a dataset's size is not known.
    """
    counter = Counter(config)
    cases = [(run, name) for run in config.expanded for name in run.datasets if run.options.rich is None]
    sizes = {name: sizes_of(config, name) for name in dict.fromkeys(name for _, name in cases)}
    found = []
    with progress("Counting the runs", len(cases)) as done:
        for run, name in cases:
            found.append(_price(config, run, name, counter.macs(run), sizes[name]))
            done(1, run.name)
    return found + list(_extractions(config, cases, sizes, counter))


def _price(config: Config, run: Run, dataset: str, macs: Macs, sizes: Sizes) -> Price:
    options, seeds = run.training, len(config.seeds)
    online = options.inputs == "online"
    image, text = (
        own + (frozen if online else 0)
        for own, frozen in ((macs.image, macs.frozen_image), (macs.text, macs.frozen_text))
    )
    views = config.backbones[run.backbone].features.views if run.backbone else 1
    train = sizes.train.part(min(options.train_images or sizes.train.images, sizes.train.images))
    pairs = train.captions if options.epoch_of == "pairs" else train.images
    frozen = macs.frozen_image + macs.frozen_text if online and run.options.trains else 0
    forward = macs.forward + run.options.copies * frozen
    epochs = options.epochs if run.options.trains else 0
    val = sizes.val.part(min(options.validation_images or sizes.val.images, sizes.val.images))
    protocols = protocols_of(run.options)

    def scored(split: Split, queries: int) -> float:
        return image * views * split.images + queries * split.captions * (text + macs.score * views * split.images)

    return Price(
        run=run.name,
        dataset=dataset,
        seeds=seeds,
        epochs=epochs,
        pairs=pairs if epochs else 0,
        gmacs_forward=forward / 1e9,
        gmacs_backward=macs.backward / 1e9,
        training=seeds * epochs * pairs * (forward + macs.backward),
        validation=seeds * (-(-epochs // options.validate_every) + (run.options.copies > 1)) * scored(val, 1),
        test=seeds * scored(sizes.test, len(protocols)),
    )


def _extractions(
    config: Config, cases: list[tuple[Run, str]], sizes: dict[str, Sizes], counter: Counter
) -> Iterator[Price]:
    """Features that runs read from the store: all images in all views, all captions with and without prompt."""
    stored = dict.fromkeys((run.backbone, name) for run, name in cases if run.training.inputs == "stored")
    for backbone, name in stored:
        assert backbone is not None
        towers, splits = counter.towers(backbone), (sizes[name].train, sizes[name].val, sizes[name].test)
        images = sum(split.images for split in splits) * config.backbones[backbone].features.views
        texts = 2 * sum(split.captions for split in splits)
        cost = images * towers.image + texts * towers.text
        yield Price(run=f"features of {backbone}", dataset=name, seeds=1, extraction=cost)


def sizes_of(config: Config, dataset: str) -> Sizes:
    """The splits of a dataset: of its prepared files, otherwise as published.

    A tenth of the train images are validation where the dataset has none.

    Raises:
        UserError: it is neither prepared nor published.
    """
    folder, options = Path(config.results) / "data" / dataset, config.datasets[dataset]
    if (folder / "images.csv").is_file():
        images = read_frame(folder / "images.csv", IMAGES)
        captions = read_frame(folder / "captions.csv", CAPTIONS)
        split = dict(zip(images["image_id"], images["split"], strict=True))
        counts = Tally(images["split"]), Tally(captions["image_id"].map(split))
    elif options.kind == "published":
        known = fingerprint(options.source)
        counts = Tally(known.images), Tally(known.captions)
    else:
        raise UserError(
            f"the size of dataset {dataset} is known only after preparation: run `snakemake {folder}/images.csv` first"
        )
    train, val, test = (Split(counts[0][name], counts[1][name]) for name in ("train", "val", "test"))
    if not val.images:
        val = train.part(-(-train.images // 10))
        train = Split(train.images - val.images, train.captions - val.captions)
    return Sizes(train, val, test)


def table(rows: Sequence[Price], tflops: float) -> Table:
    """The rows and their sum, for the terminal."""
    caption = (
        f"An estimate from multiply-accumulates (MACs) of matrix products and convolutions, at {tflops:g} TFLOP/s. "
        f"GMACs are 10^9 MACs per training pair, with texts of {TOKENS} tokens; hours are those of all seeds together."
    )
    shown = Table(title="What the runs cost (estimate)", box=box.SIMPLE_HEAD, caption=caption)
    for name in ("run", "dataset"):
        shown.add_column(name)
    numbers = ("seeds", "epochs", "pairs/epoch", "GMACs forward", "backward")
    for name in (*numbers, *(f"{part} h" for part in PARTS), "GPU h"):
        shown.add_column(name, justify="right")
    for row in rows:
        per_pair = (f"{row.gmacs_forward:,.2f}", f"{row.gmacs_backward:,.2f}")
        first = (str(row.seeds), str(row.epochs), f"{row.pairs:,}", *per_pair)
        shown.add_row(row.run, row.dataset, *first, *_hours([row], tflops), end_section=row is rows[-1])
    shown.add_row("all", *[""] * (1 + len(numbers)), *_hours(rows, tflops))
    return shown


def _hours(rows: Sequence[Price], tflops: float) -> list[str]:
    """GPU hours of each part of these rows, and of all parts."""
    totals = [sum(getattr(row, part) for row in rows) for part in (*PARTS, "macs")]
    return [f"{gpu_hours(macs, tflops):,.2f}" for macs in totals]
