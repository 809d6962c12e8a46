"""Rich texts from attributes that a frozen backbone with aligned towers finds in an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from cmer.backbones.base import Features
from cmer.backbones.build import build
from cmer.captioning.attributes.options import AttributesOptions
from cmer.captioning.base import FIELDS, Captioner, RichText
from cmer.errors import UserError
from cmer.features.device import autocast, device
from cmer.features.weights import weights_digest
from cmer.io import digest
from cmer.registry import CAPTIONERS

BANKS: dict[str, dict[str, Any]] = json.loads(
    (resources.files("cmer.captioning.attributes") / "banks.json").read_text(encoding="utf-8")
)
"""Field → the prompt that its attributes are embedded in, and the attributes."""
SENTENCE = "an overhead image of {scene} with {quantity} {objects}, {colours}, {layout}, {surroundings}"
PARAGRAPH = (
    "This overhead image shows {scene}. It contains {quantity} {objects}. The dominant colours are {colours}. "
    "The main objects are {layout}. The scene is {surroundings}."
)


@CAPTIONERS.register("attributes")
class Attributes(Captioner):
    """For every field of a structured caption, the attributes with the highest cosine to the image.

    The banks, their prompts and the templates of the three granularities are chosen here. Among equal scores the
    attribute that comes first in its bank wins.

    Raises:
        UserError: the backbone's towers share no space, so that their cosine means nothing.
    """

    options: AttributesOptions

    def __init__(self, options: AttributesOptions) -> None:
        super().__init__(options)
        self.backbone = build(options.backbone).to(device())
        if not self.backbone.shapes.aligned:
            raise UserError(
                "captioner attributes needs a backbone whose towers share a space, such as CLIP; those of "
                f"{options.backbone.printed} were trained separately"
            )
        self.counts = dict.fromkeys(FIELDS, 1) | {"main objects": options.objects, "colours": options.colours}
        self.banks = {field: self._embedded(BANKS[field]) for field in FIELDS}

    @torch.inference_mode()
    def _embedded(self, bank: dict[str, Any]) -> Tensor:
        """Unit embeddings [n, e] of a bank's attributes."""
        texts = [bank["prompt"].format(attribute) for attribute in bank["attributes"]]
        with autocast(self.options.backbone.precision):
            return _unit(self.backbone.encode_texts(self.backbone.tokenize(texts).to(device())))

    def origin(self) -> dict[str, Any]:
        """See `Captioner`: the hashes of the weights and of the banks."""
        return {"weights": weights_digest(self.backbone), "banks": digest(BANKS)}

    @torch.inference_mode()
    def caption(self, files: Sequence[str], images: Sequence[Image.Image]) -> list[RichText]:
        """See `Captioner`."""
        squares = torch.stack([self.backbone.preprocess.square(image) for image in images]).to(device())
        with autocast(self.options.backbone.precision):
            embedded = _unit(self.backbone.encode_images(self.backbone.preprocess.normalise(squares)))
        chosen = {field: self._chosen(field, embedded) for field in FIELDS}
        return [_filled({field: attributes[row] for field, attributes in chosen.items()}) for row in range(len(images))]

    def _chosen(self, field: str, images: Tensor) -> list[list[str]]:
        """The best attributes of a field for each image, best first."""
        order = (images @ self.banks[field].T).argsort(dim=1, descending=True, stable=True)
        attributes = BANKS[field]["attributes"]
        return [[attributes[index] for index in row] for row in order[:, : self.counts[field]].tolist()]


def _unit(features: Features) -> Tensor:
    return normalize(features.pooled.float(), dim=-1)


def _filled(chosen: dict[str, list[str]]) -> RichText:
    """The templates of the three granularities, filled."""
    words = {field.removeprefix("main "): _listed(attributes) for field, attributes in chosen.items()}
    words["scene"] = f"{'an' if words['scene'][0] in 'aeiou' else 'a'} {words['scene']}"
    keywords = "; ".join(f"{field}: {', '.join(attributes)}" for field, attributes in chosen.items())
    return {"keywords": [keywords], "sentence": [SENTENCE.format(**words)], "paragraph": [PARAGRAPH.format(**words)]}


def _listed(words: Sequence[str]) -> str:
    """The words as in a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
