"""A model that finds colours by their names, and folders of coloured squares."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}


class Colours:
    """Embeds an image as its mean colour, halves apart, and a text as the mean of the colours that it names."""

    name, dim = "colours", 6

    def __init__(self, kind: str = "a") -> None:
        self.digest = hashlib.sha256(kind.encode()).hexdigest()
        self.images = 0

    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> np.ndarray:
        self.images += len(images)
        return unit([mean_colours(Image.open(each) if isinstance(each, Path | str) else each) for each in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        named = [[WORDS[word] for word in text.lower().split() if word in WORDS] or [(1, 1, 1)] for text in texts]
        return unit([np.tile(np.mean(colours, axis=0), 2) for colours in named])


def mean_colours(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    half = max(1, len(pixels) // 2)
    return np.concatenate([pixels[:half].mean((0, 1)), pixels[-half:].mean((0, 1))]) + 1


def unit(vectors) -> np.ndarray:
    array = np.asarray(vectors, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def square(path: Path, colour: tuple[int, int, int], seed: int = 0, side: int = 16) -> None:
    """A noisy square of a colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 30, (side, side, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def squares(folder: Path, per_class: int = 4) -> Path:
    """Folders red, green and blue with squares of the colour and a little of another one."""
    for number in range(per_class):
        for at, name in enumerate(("red", "green", "blue")):
            colour = [20 + 9 * number] * 3
            colour[at] = 220 - 10 * number
            square(folder / name / f"{number}.png", tuple(colour), seed=10 * number + at)
    return folder
