"""A state dict for open_clip, with low-rank updates merged into the weights that they adapt."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import open_clip
import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from cmer.backbones.attention import SelfAttention
from cmer.backbones.base import Backbone, Shapes
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.errors import UserError
from cmer.inference.export.encoders import Encoders, ImageEncoder, encoders
from cmer.inference.export.probe import TEXTS, pictures, require_close
from cmer.inference.model import RetrievalModel, Vectors, load
from cmer.io import atomic

SUFFIX = ".safetensors"
LARGEST_DIFFERENCE = 1e-4
"""Of a component of a unit embedding in float32."""
OWN = "backbone."
"""Prefix of what a method trains within the towers."""
TEMPERATURE = "heads.log_scale"
"""A method's parameter that open_clip calls `logit_scale`."""


def write(run: str, out: Path) -> dict[str, Any]:
    """Write the weights under open_clip's names, load them in open_clip, and compare the embeddings.

    open_clip embeds one view of an image; where the run averages several, so must its user.

    Raises:
        UserError: open_clip does not know the run's towers, or the run trains parts that an open_clip model lacks.
    """
    model = load(run)
    name = _require_open_clip(model)
    backbone = cast(Any, model.source.backbone)
    before = _expected(model)
    merge(backbone)
    state = _complete(backbone.model.state_dict(), open_clip.create_model(name).state_dict(), backbone.shapes, model)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file(state, file, metadata={"format": "pt", "model": name, "run": model.name})
        there = open_clip.create_model(name, pretrained=str(file)).eval()
        difference = require_close(
            _found(there, name, encoders(model)), before, LARGEST_DIFFERENCE, "open_clip's model"
        )
        with atomic(out) as temporary:
            shutil.copyfile(file, temporary)
    return {"bytes": out.stat().st_size, "largest_difference": difference, "model": name, "views": model.spec.views}


def _require_open_clip(model: RetrievalModel) -> str:
    """Name of the model in open_clip, of a run that trains nothing outside it."""
    options = model.spec.backbone
    if not isinstance(options, OpenClipOptions):
        towers = "its own towers" if options is None else f"the towers of {options.kind}"
        raise UserError(f"run {model.name} has {towers}, which open_clip does not know; export to onnx or safetensors")
    outside = sorted(part for part in model.method.trained() if not part.startswith(OWN) and part != TEMPERATURE)
    if outside:
        raise UserError(
            f"run {model.name} trains {outside[0]}, for which an open_clip model has no place; export to onnx or "
            "safetensors"
        )
    return options.model


@torch.no_grad()
def merge(backbone: Backbone) -> None:
    """Add the low-rank updates to the weights that they adapt, in place, and remove their layers: W + B A."""
    layers: list[tuple[str, Any]] = [
        (n, module) for n, module in backbone.named_modules() if isinstance(module, LoraLayer)
    ]
    for name, layer in sorted(layers, key=lambda each: -each[0].count(".")):  # an out-projection before its attention
        base, (adapter,) = layer.base_layer, layer.active_adapters
        weight = base.in_proj_weight if isinstance(base, SelfAttention) else base.weight
        update = layer.lora_B[adapter].weight.flatten(1) @ layer.lora_A[adapter].weight.flatten(1)
        weight.add_(update.view_as(weight))
        backbone.set_submodule(name, base)


def _complete(
    state: dict[str, Tensor], known: dict[str, Tensor], shapes: Shapes, model: RetrievalModel
) -> dict[str, Tensor]:
    """The state dict with the temperature and the bias, which the towers do not read."""
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    given = torch.tensor(math.log(shapes.logit_scale))
    whole["logit_scale"] = model.method.state_dict().get(TEMPERATURE, given)
    if shapes.logit_bias is not None:
        whole["logit_bias"] = torch.tensor(shapes.logit_bias)
    for found, other, words in ((whole, known, "lacks"), (known, whole, "alone has")):
        if more := sorted(found.keys() - other.keys()):
            misfit = f"run {model.name} does not fit an open_clip model, which {words} {more[0]}"
            raise UserError(f"{misfit}; export to onnx or safetensors")
    return {name: whole[name].view_as(tensor) for name, tensor in known.items()}


@torch.no_grad()
def _expected(model: RetrievalModel) -> list[Vectors]:
    here = encoders(model)
    tokens = here.texts.tokenize(list(TEXTS))
    images = ImageEncoder(model.source, here.preprocess, views=1)(_squares(here))
    return [images.numpy(), here.texts(tokens.ids, tokens.mask).numpy()]


@torch.no_grad()
def _found(there: Any, name: str, here: Encoders) -> list[Vectors]:
    images = there.encode_image(here.preprocess.normalise(_squares(here)))
    texts = there.encode_text(open_clip.get_tokenizer(name)(list(TEXTS)))
    return [F.normalize(each, dim=-1).numpy() for each in (images, texts)]


def _squares(here: Encoders) -> Tensor:
    return torch.stack([here.preprocess.square(picture) for picture in pictures()])
