"""The canvas of a scene: shapes in units of the view, textured ground, and the final image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

T = TypeVar("T")
Point = tuple[float, float]
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

VIEW = 256.0
"""Side of the view that the finished image shows, in units; the origin of a scene is the view's centre."""
WORLD = 364.0
"""Side of the drawn area: the view's diagonal, so that the view fits at any angle."""
SAFE = 122.0
"""Everything within this distance from the origin is visible at every angle."""

PALETTE: dict[str, Colour] = {
    "white": (234, 234, 230),
    "red": (190, 48, 42),
    "blue": (48, 92, 186),
    "yellow": (226, 188, 48),
    "green": (58, 128, 66),
    "orange": (220, 124, 44),
    "brown": (126, 86, 58),
    "gray": (142, 144, 146),
    "black": (44, 44, 48),
    "grass": (102, 124, 70),
    "dry grass": (160, 148, 96),
    "soil": (166, 138, 104),
    "asphalt": (92, 93, 97),
    "concrete": (168, 166, 160),
    "tree": (52, 84, 46),
    "blue water": (58, 104, 148),
    "green water": (74, 112, 92),
    "brown water": (128, 112, 80),
}


class Canvas:
    """A square of WORLD units whose centre, rotated by a random angle, becomes the image.

    Args:
        rng: generator of all random choices in the scene.
        size: side of the finished image in pixels; shapes are drawn 2 or 3 times larger and downscaled.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        """Start with a black canvas."""
        self.rng = rng
        self.size = size
        self.scale = (3 if size <= 160 else 2) * size / VIEW
        self.side = round(WORLD * self.scale)
        self.angle = float(rng.uniform(0, 360))
        self.image = Image.new("RGB", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.targets: list[Point] = []

    # --- chance -----------------------------------------------------------------------------------------

    def pick(self, *options: T) -> T:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return float(self.rng.uniform(low, high))

    def count(self, most: int) -> int:
        """A number of targets, 1 to `most`."""
        return int(self.rng.integers(1, most + 1))

    def paint(self, name: str, jitter: float = 9) -> Colour:
        """A shade of the named colour."""
        return shade(PALETTE[name], 1, self.rng.normal(0, jitter / 2) + self.rng.normal(0, jitter / 6, 3))

    # --- shapes -----------------------------------------------------------------------------------------

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: int = 255) -> None:
        """Fill a polygon."""
        self.draw.polygon([self._pixel(point) for point in points], fill=(*colour, alpha))

    def line(self, points: Sequence[Point], colour: Colour, width: float, alpha: int = 255) -> None:
        """Draw a line with round joints; the width is in units."""
        pixels = [self._pixel(point) for point in points]
        self.draw.line(pixels, fill=(*colour, alpha), width=max(1, round(width * self.scale)), joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: Colour, alpha: int = 255) -> None:
        """Fill a disc."""
        left, top = self._pixel((x - radius, y - radius))
        right, bottom = self._pixel((x + radius, y + radius))
        self.draw.ellipse((left, top, right, bottom), fill=(*colour, alpha))

    def shadow(self, points: Sequence[Point], height: float) -> None:
        """Draw the shadow of a block with this outline and height; the sun is at the upper left of the canvas."""
        for step in np.linspace(height / 3, height, 3):
            self.polygon([(x + step, y + step) for x, y in points], (12, 16, 20), 58)

    def texture(self, colour: Colour, rough: float, outline: Sequence[Point] | None = None, cells: int = 10) -> None:
        """Fill a region (None: everything) with a colour whose brightness varies by `rough` at two scales."""
        value = 1 + rough * (0.6 * self.noise(cells) + 0.4 * self.noise(9 * cells))
        self.overlay(np.multiply.outer(value, np.array(colour, np.float32)), outline)

    def overlay(self, pixels: npt.NDArray[np.float32], outline: Sequence[Point] | None = None) -> None:
        """Paste pixels [side, side, 3] into a region (None: everything)."""
        mask = None
        if outline is not None:
            mask = Image.new("L", self.image.size)
            ImageDraw.Draw(mask).polygon([self._pixel(point) for point in outline], fill=255)
        self.image.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), (0, 0), mask)

    def noise(self, cells: int) -> npt.NDArray[np.float32]:
        """Smooth noise [side, side] with unit variance at its knots, with `cells` knots per side."""
        knots = self.rng.standard_normal((cells, cells)).astype(np.float32)
        return np.asarray(Image.fromarray(knots).resize(self.image.size, Image.Resampling.BICUBIC))

    def _pixel(self, point: Point) -> Point:
        return (point[0] + WORLD / 2) * self.scale, (point[1] + WORLD / 2) * self.scale

    # --- targets ----------------------------------------------------------------------------------------

    def spots(self, most: int, gap: float, box: Box) -> list[Point]:
        """Up to `most` random places in a box, at least `gap` apart and visible at every angle."""
        found: list[Point] = []
        for x, y in zip(self.rng.uniform(box[0], box[2], 400), self.rng.uniform(box[1], box[3], 400), strict=True):
            apart = all(math.dist((x, y), other) >= gap for other in found)
            if len(found) < most and apart and math.hypot(x, y) < SAFE - gap / 2:
                found.append((float(x), float(y)))
        return found

    def mark(self, x: float, y: float) -> None:
        """Record the position of an object that captions count."""
        self.targets.append((x, y))

    def seen(self) -> list[Point]:
        """Positions of the marked targets in the finished image, in units from its centre, y down."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        return [(x * cos + y * sin, -x * sin + y * cos) for x, y in self.targets]

    # --- photograph -------------------------------------------------------------------------------------

    def finish(self) -> Image.Image:
        """The view as an RGB image of `size`, with grain, haze and tint; rotated, cropped and downscaled."""
        pixels = np.asarray(self.image, np.float32)
        light = 1 + 0.03 * self.noise(4) + 0.045 * self.rng.standard_normal(pixels.shape[:2], np.float32)
        tint = self.rng.uniform(0.93, 1.06, 3).astype(np.float32) * np.float32(self.between(0.92, 1.06))
        haze = self.between(0, 14)
        pixels = (pixels * light[..., None] * tint + haze).astype(np.float32)
        sheet = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        turned = sheet.rotate(self.angle, Image.Resampling.BICUBIC)
        edge = (self.side - VIEW * self.scale) / 2
        box = (edge, edge, self.side - edge, self.side - edge)
        return turned.resize((self.size, self.size), Image.Resampling.LANCZOS, box=box)


def shade(colour: Colour, factor: float, offset: npt.NDArray[np.float64] | float = 0) -> Colour:
    """The colour lighter (factor > 1) or darker, shifted by `offset`, within 0..255."""
    red, green, blue = np.clip(np.array(colour) * factor + offset, 0, 255).astype(int).tolist()
    return red, green, blue


def rectangle(x: float, y: float, width: float, height: float, angle: float = 0) -> list[Point]:
    """Corners of a rectangle around (x, y), rotated by `angle` degrees."""
    w, h = width / 2, height / 2
    return turn([(-w, -h), (w, -h), (w, h), (-w, h)], angle, (x, y))


def turn(points: Sequence[Point], angle: float, at: Point) -> list[Point]:
    """Points rotated by `angle` degrees around the origin, then moved by `at`."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return [(at[0] + x * cos - y * sin, at[1] + x * sin + y * cos) for x, y in points]


def arc(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> list[Point]:
    """Points along an ellipse from `start` to `stop` degrees."""
    angles = np.radians(np.linspace(start, stop, 48))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def blob(rng: np.random.Generator, x: float, y: float, radius: float, wobble: float = 0.2) -> list[Point]:
    """A closed irregular outline around (x, y)."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = [rng.normal(0, wobble / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in (2, 3, 4, 5)]
    radii = radius * (1 + np.clip(sum(waves), -0.4, 0.4))
    return [(x + float(r) * math.cos(a), y + float(r) * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def winding(rng: np.random.Generator, swing: float, y: float = 0) -> list[Point]:
    """A smooth line across the canvas from left to right, within about `swing` of height `y`."""
    xs = np.linspace(-WORLD / 2, WORLD / 2, 60)
    waves = [rng.normal(0, 0.6 / k) * np.sin(k * np.pi * xs / WORLD + rng.uniform(0, 6.3)) for k in (1, 2, 3)]
    ys = y + swing * np.clip(sum(waves), -1, 1)
    return [(float(a), float(b)) for a, b in zip(xs, ys, strict=True)]


def along(line: Sequence[Point], step: float) -> list[Point]:
    """Points every `step` units along a line."""
    corners = np.array(line)
    walked = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    places = np.arange(0, walked[-1], step)
    return list(zip(*(np.interp(places, walked, axis).tolist() for axis in corners.T), strict=True))


def band(line: Sequence[Point], width: float) -> list[Point]:
    """The region within `width` / 2 above and below a line from left to right."""
    return [(x, y - width / 2) for x, y in line] + [(x, y + width / 2) for x, y in reversed(line)]
