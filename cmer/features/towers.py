"""The frozen towers as extraction runs them: in torch, or on a CPU through OpenVINO, which is faster there."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cmer.backbones.base import AttachmentPoints, Backbone, Features, Tokens
from cmer.config.backbones import BackboneOptions
from cmer.errors import UserError
from cmer.features.device import device

IMAGES_A_PASS = 8
"""Images of every forward pass through OpenVINO; fewer are filled up with zeros, so that the shape is fixed."""


def towers(backbone: Backbone, options: BackboneOptions) -> Backbone:
    """The frozen backbone as extraction runs it: on the GPU if there is one, or the CPU; the CPU through OpenVINO.

    Raises:
        UserError: OpenVINO is not installed.
    """
    return OpenVino(backbone, options) if options.runtime == "openvino" else backbone.to(device())


class OpenVino(Backbone):
    """A backbone whose towers OpenVINO runs on the CPU, in the precision and with the threads of the options.

    A tower is converted from the torch module at its first call, for the blocks asked for: seconds. In float32, the
    relative error of every output against torch is below 1e-5 (tested); in bfloat16, it is that of torch's bfloat16.

    Raises:
        UserError: OpenVINO is not installed.
    """

    def __init__(self, backbone: Backbone, options: BackboneOptions) -> None:
        super().__init__()
        self.backbone = backbone
        self.shapes, self.preprocess = backbone.shapes, backbone.preprocess
        self._openvino = _import_openvino()
        self._settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[options.precision],
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,  # one batch at a time, on all threads
            "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same cores
        }
        self._compiled: dict[tuple[type[_Tower], tuple[int, ...]], Any] = {}

    def encode_images(self, pixels: Tensor, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`; the outputs are float32 on the CPU."""
        shape = (IMAGES_A_PASS, *pixels.shape[1:])
        parts = [self._run(_ImageTower, [_filled(part)], [shape], blocks) for part in pixels.split(IMAGES_A_PASS)]
        pooled, *kept = [torch.cat(outputs)[: len(pixels)] for outputs in zip(*parts, strict=True)]
        return Features(pooled, dict(zip(blocks, kept, strict=True)))

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Backbone`."""
        return self.backbone.tokenize(texts)

    def encode_texts(self, tokens: Tokens, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`; the outputs are float32 on the CPU."""
        pooled, *kept = self._run(_TextTower, [tokens.ids, tokens.mask], [(-1, -1), (-1, -1)], blocks)
        return Features(pooled, dict(zip(blocks, kept, strict=True)), tokens.mask.cpu())

    def attachment_points(self) -> AttachmentPoints:
        """See `Backbone`; nothing attached there has an effect on what OpenVINO runs."""
        return self.backbone.attachment_points()

    def _run(
        self, tower: type[_Tower], inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], blocks: Sequence[int]
    ) -> list[Tensor]:
        """Outputs of a tower: pooled, then the blocks; -1 in a shape stands for any size."""
        inputs, key = [each.cpu() for each in inputs], (tower, tuple(blocks))
        if key not in self._compiled:
            model = self._converted(tower(self.backbone, blocks), inputs, shapes)
            self._compiled[key] = self._openvino.Core().compile_model(model, "CPU", self._settings)
        outputs = self._compiled[key]([each.numpy() for each in inputs])
        return [torch.from_numpy(output) for output in outputs.to_tuple()]

    def _converted(self, tower: _Tower, inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> Any:
        with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # tracing warns of what may depend on the input's size
            return self._openvino.convert_model(tower, example_input=tuple(inputs), input=list(map(list, shapes)))


class _Tower(nn.Module):
    """A tower from tensors to a tuple of tensors: pooled, then the blocks."""

    def __init__(self, backbone: Backbone, blocks: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.blocks = backbone, blocks

    def outputs(self, features: Features) -> tuple[Tensor, ...]:
        return features.pooled, *(features.blocks[block] for block in self.blocks)


class _ImageTower(_Tower):
    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.outputs(self.backbone.encode_images(pixels, self.blocks))


class _TextTower(_Tower):
    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return self.outputs(self.backbone.encode_texts(Tokens(ids, mask), self.blocks))


def _filled(part: Tensor) -> Tensor:
    """The images with zeros behind them, `IMAGES_A_PASS` in all."""
    if len(part) == IMAGES_A_PASS:
        return part
    return torch.cat([part, part.new_zeros(IMAGES_A_PASS - len(part), *part.shape[1:])])


def _import_openvino() -> Any:
    """OpenVINO without its telemetry, which would otherwise report every import to its vendor."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise UserError(
            "runtime openvino needs OpenVINO, which is not installed; `pip install 'cmer[openvino]'` adds it"
        ) from None
    return openvino
