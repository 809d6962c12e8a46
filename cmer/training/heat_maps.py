"""Grad-CAM maps of a trained run for some pairs of the test split. Called by the commands."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cmer.backbones.base import Backbone
from cmer.config.base import Distinct, Model
from cmer.config.datasets import Dataset
from cmer.config.runs import RunSpec
from cmer.data.images import open_images
from cmer.data.targets import given_pairs, smallest_targets
from cmer.errors import UserError
from cmer.features.device import device
from cmer.features.inputs import online_texts, token_texts
from cmer.features.store import Manifest
from cmer.features.weights import require_weights
from cmer.io import digest, sha256
from cmer.methods.base import Method
from cmer.methods.grad_cam import grad_cam, rank_correlation, shuffle_weights
from cmer.provenance import code_digest, versions
from cmer.training import HEAT_MAPS
from cmer.training.assembly import RunFiles, built, towers_of
from cmer.training.checkpoint import load_tensors
from cmer.training.embedding import TrainedRun, trained_run

DRAWS = 5
"""Times that the weights are shuffled."""
QUALITY = 90
"""JPEG quality of the pictures."""


class HeatMapSpec(Model):
    """What heat maps are of.

    Attributes:
        run: the trained run.
        dataset: settings of the dataset.
        queries: captions of test images; none: those that name the smallest things.
    """

    run: RunSpec
    dataset: Dataset
    queries: Distinct[str]


def heat_maps(spec: HeatMapSpec, checkpoint: Path, files: RunFiles) -> dict[str, Any]:
    """Maps of the pairs, JSON-ready, with the picture that the tower sees, and what shuffled weights do to the maps.

    They are computed in float32, from the image as it is (one view).

    Args:
        spec: the run and the pairs.
        checkpoint: checkpoint of the run.
        files: the files that the run was trained on.

    Raises:
        UserError: the checkpoint is missing, damaged or of another run; it was trained on other images, features or
            weights; the run has no embeddings of images or brings its own towers; or a query is no test caption.
    """
    trained = trained_run(checkpoint, files, spec.run)
    pairs = trained.pairs
    captions = given_pairs(pairs, spec.queries) if spec.queries else smallest_targets(pairs)
    method, backbone = _built(trained)
    load_tensors(method.trained(), trained.tensors, checkpoint)
    method.eval()
    images = open_images(spec.dataset, files.folder)
    ids = [int(pairs.caption_image[caption]) for caption in captions]
    squares = [backbone.preprocess.square(images.load(pairs.files[i], pairs.sha256[i])) for i in ids]
    texts = [pairs.texts[caption] for caption in captions]
    embedded = _embedded(method, backbone, spec.run, texts)
    pixels = backbone.preprocess.normalise(torch.stack(squares).to(device()))
    scores, found = grad_cam(method, backbone, pixels, embedded)
    kept = _correlations(method, backbone, pixels, embedded, found)
    maps = {part: each.double().round(decimals=4).tolist() for part, each in found.items()}
    shown = [
        {
            "caption": texts[row],
            "image_id": ids[row],
            "score": round(float(scores[row]), 4),
            "picture": _jpeg(squares[row]),
            "maps": {part: each[row] for part, each in maps.items()},
            "shuffled": {part: round(each[row], 4) for part, each in kept.items()},
        }
        for row in range(len(captions))
    ]
    made = {"code": code_digest(*HEAT_MAPS, *spec.run.modules()), "versions": versions()}
    return {"pairs": shown, "record": trained.record | {"heat_maps": made}}


def _built(trained: TrainedRun) -> tuple[Method, Backbone]:
    spec, pairs = trained.spec, trained.pairs
    if spec.backbone is None or spec.options.scoring != "embedding" or spec.options.rich:
        raise UserError(f"run {spec.run} has no image tower of a backbone and one embedding per image; leave it out")
    backbone = towers_of(spec)
    assert backbone is not None
    _require_inputs(trained, backbone)
    captions = [pairs.texts[caption] for caption in pairs.captions_of(pairs.train_images)]
    return built(spec, backbone, captions), backbone


def _require_inputs(trained: TrainedRun, backbone: Backbone) -> None:
    """Raise `UserError` unless images, features and weights are those of the training; no feature is read."""
    spec, hashes, file = trained.spec, trained.pairs.sha256, trained.files.features
    found = digest(hashes)
    if spec.training.inputs == "stored":
        if file is None:
            raise UserError(f"run {spec.run} reads stored features; give their manifest as --features")
        assert spec.backbone is not None
        manifest = Manifest.read(file)
        manifest.require(spec.backbone, hashes, file)
        require_weights(backbone, manifest)
        found = manifest.digest
    if own := [sha256(each) for each in spec.weight_files()]:
        found = digest([found, own])
    if found != trained.record["features"]:
        raise UserError(
            f"{trained.checkpoint} was trained on other images, features or weight files; give its own, or train again"
        )


def _embedded(method: Method, backbone: Backbone, spec: RunSpec, texts: list[str]) -> Tensor:
    assert spec.backbone is not None
    tokens = spec.options.text_input == "tokens"
    full = spec.backbone.model_copy(update={"precision": "float32"})
    batch = (token_texts(method.tokenize) if tokens else online_texts(backbone, full, method.text_blocks))(texts)
    with torch.no_grad():
        return torch.as_tensor(method.encode_texts(batch))


def _correlations(
    method: Method, backbone: Backbone, pixels: Tensor, texts: Tensor, maps: dict[str, Tensor]
) -> dict[str, list[float]]:
    """Mean rank correlation of each map with those of shuffled weights."""
    total = {part: [0.0] * len(pixels) for part in maps}
    for seed in range(DRAWS):
        for module in (backbone, *(child for child in method.children() if child is not backbone)):
            shuffle_weights(module, seed)
        for part, found in grad_cam(method, backbone, pixels, texts)[1].items():
            each = [rank_correlation(*two) for two in zip(maps[part], found, strict=True)]
            total[part] = [sum(two) for two in zip(total[part], each, strict=True)]
    return {part: [value / DRAWS for value in values] for part, values in total.items()}


def _jpeg(square: Tensor) -> str:
    file = BytesIO()
    Image.fromarray(square.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()
