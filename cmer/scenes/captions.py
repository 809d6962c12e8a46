"""Captions of drawn scenes: sentence patterns with alternatives, filled with the facts of the drawing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cmer.scenes.canvas import Canvas, Point

WORDS = ("zero", "one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Facts:
    """Facts about a scene.

    Attributes:
        colour: colour of the objects that captions count.
        words: values of further slots in this scene's sentences; a value may contain alternatives.
        count: number of these objects.
        side: part of the image where they are.
    """

    colour: str
    words: dict[str, str] = field(default_factory=dict)
    count: int = 0
    side: str = ""


class Draw(Protocol):
    """A function named after its scene class that draws the scene and returns its facts."""

    __name__: str

    def __call__(self, c: Canvas) -> Facts:
        """Draw on `c`."""


@dataclass(frozen=True)
class Scene:
    """A scene class: its drawing function and its sentence patterns.

    In a pattern, `{n}` is the exact number, `{some}` a vague number, `{c}` the colour, `{side}` the part of the image,
    and other `{slots}` are the facts' words; `[one|more]` is singular or plural, `(a/b/c)` a random choice.

    Attributes:
        draw: function that draws the scene and returns its facts.
        exact: sentences that distinguish images of the class.
        vague: sentences that are true of many images, some of them also of other classes.
    """

    draw: Draw
    exact: tuple[str, ...]
    vague: tuple[str, ...]


SCENES: dict[str, Scene] = {}


def scene(exact: tuple[str, ...], vague: tuple[str, ...]) -> Callable[[Draw], Draw]:
    """Decorator that registers a drawing function with its sentences in `SCENES`, under the function's name."""

    def add(draw: Draw) -> Draw:
        SCENES[draw.__name__] = Scene(draw, exact, vague)
        return draw

    return add


def side_of(targets: list[Point]) -> str:
    """The part of the image that contains the mean position of the targets: left, right, upper, lower or middle."""
    x, y = np.mean(targets, axis=0)
    if max(abs(x), abs(y)) < 25:
        return "middle"
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "upper" if y < 0 else "lower"


def five_captions(scene: Scene, facts: Facts, rng: np.random.Generator) -> list[str]:
    """Five captions of an image, with repetitions as in real datasets.

    As in RSICD, about one image in six has one caption five times, and one in five has two captions (three times and
    twice). The others have five different captions, up to three of them vague enough to fit other images.
    """
    vague = int(rng.integers(0, 4))
    patterns = [*rng.choice(scene.exact, 5 - vague, replace=False), *rng.choice(scene.vague, vague)]
    captions = [sentence(str(pattern), facts, rng) for pattern in rng.permutation(patterns)]
    kind = rng.random()
    if kind < 1 / 6:
        return [captions[0]] * 5
    if kind < 1 / 6 + 1 / 5:
        return [captions[number] for number in (0, 1, 1, 0, 0)]
    return captions


def sentence(pattern: str, facts: Facts, rng: np.random.Generator) -> str:
    """Fill in a sentence pattern; see `Scene`."""
    one = facts.count == 1
    number = WORDS[facts.count] if rng.random() < 0.7 else str(facts.count)
    slots = {
        "n": "(a/one)" if one else number,
        "some": "(a/one)" if one else "(some/a couple of)" if facts.count == 2 else "(some/several/a few)",
        "c": facts.colour,
        "side": facts.side,
    }
    text = pattern.format_map(slots | facts.words)
    text = re.sub(r"\[([^|\]]*)\|([^\]]*)\]", lambda match: match[1 if one else 2], text)
    while "(" in text:  # from the innermost outwards, because alternatives can be nested
        text = re.sub(r"\(([^()]*)\)", lambda match: str(rng.choice(match[1].split("/"))), text)
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return " ".join(text.split()) + " ."
