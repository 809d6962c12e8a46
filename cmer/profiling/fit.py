"""How CMER trains on a machine of a given size: engine, part size, blocks and type of features, by shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import yaml

from cmer.config.backbones import BackboneOptions, FeatureDtype, FeatureOptions
from cmer.config.experiment import Config, parse
from cmer.features.extract import IMAGES_A_BATCH
from cmer.features.space import Amounts, stored_bytes
from cmer.profiling.counting import TOKENS, Towers
from cmer.profiling.price import gpu_hours, prices, sizes_of
from cmer.profiling.shapes import Shadow

Engine = Literal["stored", "online"]

LIBRARIES = 1_000_000_000
"""Bytes of Python and the libraries; 0.94 GB were measured on Linux, with everything imported."""
WORKING = 12
"""Vectors of a block's width that a tower computes with per token: queries, keys, values, an MLP's hidden layer twice.

An estimate, unlike the bytes kept for the backward pass, which are most of a step's and are counted.
"""
GB = 1e9
_Macs = dict[str, float]
WAYS: tuple[tuple[Engine, FeatureDtype | None], ...] = (
    ("stored", "bfloat16"),
    ("stored", "int8"),
    ("online", None),
)
"""Engines and types of stored features, the preferred one first: stored features cost a fraction of the arithmetic."""


@dataclass(frozen=True)
class Machine:
    """Bytes of memory (main memory, or that of the GPU that trains), and of disk for stored features."""

    memory: int
    disk: int


@dataclass(frozen=True)
class Way:
    """A way to train, and what it takes.

    Attributes:
        engine: whether features are stored before the training, or the towers run at every step.
        blocks: image blocks that the side branch reads.
        dtype: type of the stored features; None online.
        disk: bytes of the stored features.
        micro_batch: pairs that are encoded at once; None: the whole batch.
        kept: bytes kept for the backward pass at one time.
        memory: bytes of the process at its peak, in extraction or training.
        macs: multiply-accumulates of extraction, training, validation and test.
    """

    engine: Engine
    blocks: list[int]
    dtype: FeatureDtype | None
    disk: int
    micro_batch: int | None
    kept: int
    memory: int
    macs: float

    def hours(self, tflops: float) -> float:
        """Hours at this throughput."""
        return gpu_hours(self.macs, tflops)

    def fits(self, machine: Machine) -> bool:
        """Whether memory and disk are large enough."""
        return self.memory <= machine.memory and self.disk <= machine.disk


class Fit:
    """Ways to train CMER, with its default settings, on a backbone and a published dataset.

    Args:
        backbone: settings of the towers, as the config would have them.
        dataset: name of a published dataset.
        batch: pairs of a batch.

    Raises:
        UserError: the backbone or dataset is unknown, or CMER does not support the backbone.
    """

    def __init__(self, backbone: BackboneOptions, dataset: str, batch: int) -> None:
        self.backbone, self.dataset, self.batch = backbone, dataset, batch
        sizes = sizes_of(self.config(FeatureOptions(), "online", None), dataset)
        self.towers = Towers(backbone)
        self._counted: dict[int, tuple[_Bytes, _Macs]] = {}
        splits = (sizes.train, sizes.val, sizes.test)
        texts = 2 * sum(split.captions for split in splits)  # with and without scene prompt
        images = sum(split.images for split in splits)
        self.amounts = Amounts(images=images, texts=texts, tokens=TOKENS * texts)

    def settings(self, features: FeatureOptions, engine: Engine, micro_batch: int | None) -> dict[str, Any]:
        """A complete config with one run."""
        name = re.sub(r"\W+", "_", self.backbone.printed.lower()).strip("_")
        towers = self.backbone.model_dump(exclude_unset=True, exclude_none=True)
        chosen = features.model_dump(exclude_defaults=True)
        training = {"batch_size": self.batch, "micro_batch": micro_batch, "inputs": engine}
        return {
            "results": f"results/{name}_{self.dataset}",
            "datasets": {self.dataset: {"source": self.dataset}},
            "backbones": {name: towers | ({"features": chosen} if chosen else {})},
            "training": {key: value for key, value in training.items() if value is not None},
            "runs": {"cmer": {"method": "cmer", "datasets": [self.dataset], "backbones": [name]}},
        }

    def config(self, features: FeatureOptions, engine: Engine, micro_batch: int | None) -> Config:
        """The parsed config."""
        return parse(self.settings(features, engine, micro_batch), "the planned config")

    def lines(self, way: Way) -> str:
        """The config of a way to train, in YAML."""
        settings = self.settings(self.features(way.blocks, way.dtype), way.engine, way.micro_batch)
        text = yaml.safe_dump(settings, sort_keys=False, width=100, default_flow_style=None)
        random = "# These towers have random weights; add `pretrained`, `weights`, or a card (cmer backbones).\n"
        return (random if self.backbone.gpu else "") + text

    def features(self, blocks: list[int], dtype: FeatureDtype | None) -> FeatureOptions:
        """What a way to train stores; no block of the text tower, which CMER adapts."""
        chosen: dict[str, Any] = {} if blocks == self.every_block else {"blocks": blocks}
        return FeatureOptions.model_validate(chosen | ({"dtype": dtype, "text_blocks": []} if dtype else {}))

    @cached_property
    def every_block(self) -> list[int]:
        """All image blocks."""
        return list(range(len(self.towers.backbone.shapes.blocks)))

    def choices(self, machine: Machine) -> Iterator[list[Way]]:
        """Ways to train with all blocks, with four at equal distances, and with the last one; see `WAYS`.

        Each encodes as many pairs at once as the machine's memory allows: the batch, a power of two, or at least one.
        """
        count = len(self.every_block)
        for number in (count, *(few for few in (4, 1) if few < count)):
            blocks = [count * (place + 1) // number - 1 for place in range(number)]
            if number not in self._counted:
                self._counted[number] = _Bytes(self, blocks), self._macs(blocks)
            bytes_of, macs = self._counted[number]
            yield [self._way(bytes_of, macs, engine, dtype, machine.memory) for engine, dtype in WAYS]

    def _way(self, bytes_of: _Bytes, macs: _Macs, engine: Engine, dtype: FeatureDtype | None, memory: int) -> Way:
        size = bytes_of.largest_part(engine, memory)
        return Way(
            engine=engine,
            blocks=bytes_of.blocks,
            dtype=dtype,
            disk=bytes_of.disk(dtype) if dtype else 0,
            micro_batch=None if size == self.batch else size,
            kept=bytes_of.kept(engine, size),
            memory=bytes_of.memory(engine, size),
            macs=macs[engine] + macs["again"] * (1 - size / self.batch),
        )

    def _macs(self, blocks: list[int]) -> _Macs:
        """Multiply-accumulates, as `cmer price` counts them, and those of encoding all pairs once more."""
        settings = self.settings(self.features(blocks, None), "online", None)
        (run,) = settings["runs"].values()
        settings["runs"] = {engine: run | {"training": {"inputs": engine}} for engine in ("stored", "online")}
        stored, online, extraction = prices(parse(settings, "the planned config"))
        again = stored.gmacs_forward * 1e9 * stored.seeds * stored.epochs * stored.pairs
        return {"stored": stored.macs + extraction.macs, "online": online.macs, "again": again}


class _Bytes:
    """Bytes that training with these image blocks takes."""

    def __init__(self, fit: Fit, blocks: list[int]) -> None:
        self.fit, self.blocks = fit, blocks
        (run,) = fit.config(FeatureOptions(), "online", None).expanded
        self.shadow = Shadow(run.method, run.options, fit.towers, fit.features(blocks, None))
        self._known: dict[tuple[Engine, int], int] = {}

    def disk(self, dtype: FeatureDtype) -> int:
        """Bytes of the stored features."""
        features = self.fit.features(self.blocks, dtype).model_copy(update={"blocks": self.blocks})
        return stored_bytes(self.fit.towers.backbone.shapes, features, self.fit.amounts)

    def kept(self, engine: Engine, size: int) -> int:
        """Bytes kept for the backward pass if `size` pairs are encoded at once."""
        if (engine, size) not in self._known:
            self._known[engine, size] = self.shadow.kept_bytes(self.fit.batch, size, stored=engine == "stored")
        return self._known[engine, size]

    def memory(self, engine: Engine, size: int) -> int:
        """Bytes of the process when it takes most: as it loads weights, extracts features, or trains."""
        shapes, shadow = self.fit.towers.backbone.shapes, self.shadow
        online = engine == "online"
        every, needed = shadow.weight_bytes(True), shadow.weight_bytes(online)
        width = max(spec.tokens * spec.width for spec in shapes.blocks) if online else 0
        width = max(width, TOKENS * max(spec.width for spec in shapes.text_blocks))
        pixels = 4 * 3 * self.fit.towers.backbone.preprocess.size**2
        training = needed + shadow.state_bytes(self.fit.batch) + self.kept(engine, size)
        training += size * (4 * WORKING * width + (pixels if online else 2 * shadow.feature_bytes()))
        extraction = 0 if online else every + IMAGES_A_BATCH * (pixels + 2 * shadow.feature_bytes())
        return LIBRARIES + max(2 * every, extraction, training)

    def largest_part(self, engine: Engine, memory: int) -> int:
        """Most pairs that fit at once: the whole batch, otherwise a power of two; 1 if none fits."""
        batch = self.fit.batch
        if batch == 1 or self.memory(engine, batch) <= memory:
            return batch
        one, two = self.memory(engine, 1), self.memory(engine, 2)
        most = 1 + (memory - one) // max(1, two - one) if one <= memory else 1  # memory is nearly linear in the size
        size = 1 << min(most, batch - 1).bit_length() - 1
        while size > 1 and self.memory(engine, size) > memory:
            size //= 2
        return size
