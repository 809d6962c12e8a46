"""A trained run or an aligned backbone in hand: unit embeddings of images and texts, and rankings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cmer.backbones.base import Features, Tokens
from cmer.backbones.open_clip.cards import card_names
from cmer.config.backbones import BackboneOptions, FeatureDtype, Runtime, parse_backbone
from cmer.config.datasets import FolderDataset
from cmer.errors import UserError
from cmer.features.device import device, threads
from cmer.features.inputs import Inputs, Pixels, as_stored
from cmer.features.towers import OpenVino
from cmer.features.views import dihedral_each
from cmer.inference.pictures import Picture, opened
from cmer.inference.source import Source, of_backbone, of_checkpoint
from cmer.io import cores
from cmer.retrieval.embed import encode_images, encode_texts
from cmer.training.assembly import online_inputs, preprocess_of

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]

PRETRAINED = Path(__file__).parent / "published"
"""Folder of the models that come with the package."""
DECODED_AT_ONCE = 128
"""Images that are decoded before they are encoded."""
IMAGES_A_PART = 8
"""Images per forward pass on a CPU: EfficientNet-Lite0 takes half as long as with 64 images at once."""


class Ranking(NamedTuple):
    """Images in the order of their scores, the best first.

    Attributes:
        indices: rows of the ranked images, int64 [k].
        scores: their cosines with the query, float32 [k].
    """

    indices: npt.NDArray[np.int64]
    scores: Vectors


class RetrievalModel:
    """A method with its trained weights, which embeds images and texts of its user.

    `cmer.load` makes one. It computes on the GPU if there is one, in the precision of the run.

    Attributes:
        name: name of the run, e.g. "lite.cmer", or of the backbone.
        digest: says which model made an embedding; another spec, other trained tensors or frozen weights change it.
        source: what the model was built from.
    """

    def __init__(self, source: Source) -> None:
        self.name, self.digest, self.source = source.name, source.digest, source
        self.spec, self.method, self._towers = source.spec, source.method, source.towers
        self._preprocess = preprocess_of(source.method, source.towers)
        self._raster = self.spec.source.raster if isinstance(self.spec.source, FolderDataset) else None
        self._pool = ThreadPoolExecutor(cores())  # decoding releases the global interpreter lock

    @cached_property
    def dim(self) -> int:
        """Width of the embeddings."""
        return len(self.encode_texts(["a"])[0])

    def encode_images(self, images: Sequence[Picture]) -> Vectors:
        """Unit embeddings [n, dim], the mean over the run's dihedral views, as the evaluation computes them.

        Args:
            images: files (JPEG, PNG, TIFF, JPEG 2000, BMP, GIF, WebP or PPM), or pictures with 8 bits per channel.

        Raises:
            UserError: a file is missing or no image; the message names it.
        """
        _require_several(images, "images")
        parts: list[Tensor] = []
        for start in range(0, len(images), DECODED_AT_ONCE):
            squares = torch.stack(list(self._pool.map(self._square, images[start : start + DECODED_AT_ONCE])))
            for part in squares.split(IMAGES_A_PART if device().type == "cpu" else DECODED_AT_ONCE):
                parts.append(self._encoded(part))
        return _array(parts) if parts else np.empty((0, self.dim), np.float32)

    def _square(self, picture: Picture) -> Tensor:
        return self._preprocess.square(opened(picture, self._raster))

    def _encoded(self, squares: Tensor) -> Tensor:
        """Unit embeddings of uint8 squares [n, 3, size, size]."""

        def pixels(images: np.ndarray, views: np.ndarray, _training: bool) -> Tensor:
            return self._preprocess.normalise(dihedral_each(squares[images], views).to(device()))

        numbers, precision = np.arange(len(squares)), self.spec.training.precision
        # torch's threads wait actively, and would take the cores from OpenVINO's
        with threads(1) if isinstance(self._towers, OpenVino) else nullcontext():
            (found,) = encode_images(self.method, self._inputs(pixels), numbers, self.spec.views, precision)
        return torch.as_tensor(found)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit embeddings [n, dim]; a text over the limit of the text tower loses its tail.

        Raises:
            UserError: a text is blank.
        """
        _require_several(texts, "texts")
        for number, text in enumerate(texts):
            if not text.strip():
                raise UserError(f"text {number} is blank; write what the image shows")
        if not texts:
            return np.empty((0, self.dim), np.float32)
        found, rows = encode_texts(self.method, self._inputs(_no_pixels), texts, self.spec.training.precision)
        embeddings: Vectors = _array([torch.as_tensor(found)])[rows]
        return embeddings

    def _inputs(self, pixels: Pixels) -> Inputs:
        """Inputs of the method; features are rounded as the run's stored ones were."""
        inputs, backbone = online_inputs(self.spec, self.method, self._towers, pixels), self.spec.backbone
        if backbone is None or self.spec.training.inputs == "online":
            return inputs
        return _rounding(inputs, backbone.features.dtype)

    def rank(self, query: Picture | Vectors, images: Vectors, top: int = 10) -> Ranking:
        """The images that are closest to a query by their cosine; equal scores keep the order of the rows.

        Args:
            query: a text (str), an image (`Path` or picture), or a vector [dim].
            images: unit embeddings [n, dim] from `encode_images`.
            top: maximum number of images.

        Raises:
            UserError: the query is blank or no image, or the embeddings have another width.
        """
        vector = self._vector(query)
        if images.ndim != 2 or images.shape[1:] != vector.shape:
            raise UserError(f"embeddings of shape {list(images.shape)} do not fit a query of {list(vector.shape)}")
        scores = (images @ vector).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:top]
        return Ranking(best, scores[best])

    def _vector(self, query: Picture | Vectors) -> Vectors:
        if isinstance(query, np.ndarray):
            return np.asarray(query / max(float(np.linalg.norm(query)), 1e-12), np.float32)
        (vector,) = self.encode_texts([query]) if isinstance(query, str) else self.encode_images([query])
        return np.asarray(vector)


def load(source: str | Path | BackboneOptions, runtime: Runtime | None = None) -> RetrievalModel:
    """The model of a checkpoint or of an aligned backbone, on the GPU if there is one, otherwise on the CPU.

    Args:
        source: a checkpoint that `cmer train` or `cmer export` wrote; the name of a pretrained model of this package,
            such as rsicd_lite_cmer; the name of published weights (`cmer backbones` lists them); or the settings of a
            backbone.
        runtime: what runs the frozen towers, on all cores; None: what ran them for the run. On a CPU, openvino is
            several times as fast as torch; in bfloat16, embeddings differ slightly (docs/efficiency.md).

    Raises:
        UserError: there is no such file or name; the file is damaged; the run's method cannot embed images and texts
            apart, or needs the captions that it was trained on; the towers of a backbone share no space, or their
            weights cannot be had.
    """
    if isinstance(source, BackboneOptions):
        return RetrievalModel(of_backbone(source, runtime))
    own = PRETRAINED / f"{source}.safetensors"
    path = own if own.is_file() else Path(source)
    if path.is_dir():
        raise UserError(f"{source} is a folder; give a checkpoint, such as its seed2022.safetensors")
    if path.is_file() or path.suffix == ".safetensors":
        return RetrievalModel(of_checkpoint(path, runtime))
    if str(source) in card_names():
        card = parse_backbone({"kind": "open_clip", "backbone": str(source)})
        return RetrievalModel(of_backbone(card, runtime))
    names = ", ".join(sorted(file.stem for file in PRETRAINED.glob("*.safetensors")))
    raise UserError(
        f"{source} is neither a checkpoint nor the name of a model; pretrained are {names}, and `cmer backbones` lists "
        "published weights"
    )


def _require_several(given: Sequence[object], what: str) -> None:
    if isinstance(given, (str, Path, Image.Image)):
        raise UserError(f"a list of {what} is needed, not one; put it in brackets")


def _rounding(inputs: Inputs, dtype: FeatureDtype) -> Inputs:
    """The inputs with features rounded as the store does; tokens stay what they are."""

    def images(*given: Any) -> Features | Tensor:
        return rounded(inputs.images(*given))

    def texts(given: Sequence[str]) -> Features | Tokens:
        return rounded(inputs.texts(given))

    def rounded(found: T) -> T | Features:
        return as_stored(found, dtype).to(device()) if isinstance(found, Features) else found

    return Inputs(images, texts)


def _no_pixels(_images: np.ndarray, _views: np.ndarray, _training: bool) -> Tensor:
    raise AssertionError("texts have no pixels")


def _array(parts: Iterable[Tensor]) -> Vectors:
    embeddings: Vectors = torch.cat([part.cpu() for part in parts]).numpy()
    return embeddings
