"""The two encoders of a model as modules from tensors to unit embeddings, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmer.backbones.base import Preprocess, Tokens
from cmer.inference.model import RetrievalModel
from cmer.inference.source import Source
from cmer.training.assembly import preprocess_of


@dataclass(frozen=True)
class Encoders:
    """Modules on the CPU.

    Attributes:
        images: uint8 or float squares [B, 3, size, size] of values up to 255 → unit embeddings [B, e].
        texts: token numbers [B, L] and their mask [B, L] → unit embeddings [B, e].
        preprocess: how images become squares.
    """

    images: ImageEncoder
    texts: TextEncoder
    preprocess: Preprocess


def encoders(model: RetrievalModel) -> Encoders:
    """The encoders of a model, in eval mode, which averages over its dihedral views."""
    source = model.source
    method = source.method.cpu()
    backbone = None if source.backbone is None else source.backbone.cpu()
    preprocess = preprocess_of(method, backbone)
    images, texts = ImageEncoder(source, preprocess, model.spec.views), TextEncoder(source)
    return Encoders(images.eval(), texts.eval(), preprocess)  # the exporter restores the mode that it finds


class ImageEncoder(nn.Module):
    """See `Encoders`."""

    def __init__(self, source: Source, preprocess: Preprocess, views: int) -> None:
        super().__init__()
        self.method, self.backbone, self.views = source.method, source.backbone, views
        self.features = source.spec.options.image_input == "features"
        self.preprocess = preprocess

    def forward(self, squares: Tensor) -> Tensor:
        """See `Encoders`."""
        pixels = self.preprocess.normalise(squares)
        each = torch.stack([self._view(_dihedral(pixels, view)) for view in range(self.views)])
        return F.normalize(each.mean(dim=0), dim=-1)

    def _view(self, pixels: Tensor) -> Tensor:
        if not self.features:
            return torch.as_tensor(self.method.encode_images(pixels))
        assert self.backbone is not None
        found = self.backbone.encode_images(pixels, self.method.image_blocks)
        return torch.as_tensor(self.method.encode_images(found))


class TextEncoder(nn.Module):
    """See `Encoders`."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.method, self.backbone = source.method, source.backbone
        self.features = source.spec.options.text_input == "features"

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `Encoders`."""
        tokens = Tokens(ids, mask)
        if not self.features:
            return torch.as_tensor(self.method.encode_texts(tokens))
        assert self.backbone is not None
        found = self.backbone.encode_texts(tokens, self.method.text_blocks)
        return torch.as_tensor(self.method.encode_texts(found))

    @property
    def owner(self) -> Any:
        """What tokenises: the method, or the backbone if the method reads its features."""
        return self.backbone if self.features else self.method

    def tokenize(self, texts: list[str]) -> Tokens:
        """Tokens of texts, as the model has them."""
        tokens: Tokens = self.owner.tokenize(texts)
        return tokens


def _dihedral(pixels: Tensor, view: int) -> Tensor:
    """A view, as `cmer.features.views.dihedral` makes it, of operations that ONNX has: rot90 is not one."""
    for _ in range(view % 4):
        pixels = pixels.transpose(-2, -1).flip(-2)
    return pixels.flip(-1) if view >= 4 else pixels
