"""Cards of published weights for models of open_clip, by which a config names a backbone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cmer.config.base import Model, Text, validate
from cmer.config.reading import parse_yaml

FOLDER = Path(__file__).parent
NOT_STATED = "not stated"
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class TagWeights(Model):
    """Weights that open_clip fetches from the Hugging Face hub."""

    kind: Literal["tag"]
    tag: Text

    def named(self) -> str:
        """Where it is, in words."""
        return f"open_clip's tag {self.tag}"


class HubWeights(Model):
    """A file in a model repository of the Hugging Face hub, whose checksum the hub states."""

    kind: Literal["hub"]
    repo: Text
    revision: Text
    file: Text

    def named(self) -> str:
        """Where it is, in words."""
        return f"{self.file} of {self.repo} on the Hugging Face hub"


class UrlWeights(Model):
    """A file on the web, or a file in a zip there."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: Sha256 | None = Field(default=None, description="null: not published, not checked")
    member: Text | None = Field(default=None, description="name in the zip; null: the file is no zip")

    def named(self) -> str:
        """Where it is, in words."""
        return f"{self.member} in {self.url}" if self.member else self.url


class Card(Model):
    """Published weights of a model of open_clip.

    Attributes:
        title: name printed in tables.
        model: open_clip's name of the architecture.
        parameters: number of parameters of both towers, the temperature and the bias.
        megabytes: size of the file, 10^6 bytes; None if not stated.
        activation: activation that the weights are used with.
        evidence: how the activation is known.
        licence: licence of the weights, if stated.
        trained_on: what the weights were trained on.
        seen: dataset → what the weights may have seen of it, where something is known.
        weights: where they come from.
        citation: the paper.
        facts: addresses of the pages that state this.
    """

    title: Text
    model: Text
    parameters: int
    megabytes: float | None = None
    activation: Literal["gelu", "quick_gelu"]
    evidence: Text
    licence: Text = NOT_STATED
    trained_on: Text = NOT_STATED
    seen: dict[Literal["rsicd", "rsitmd", "ucm", "sydney"], Text] = Field(default={})
    weights: Annotated[TagWeights | HubWeights | UrlWeights, Field(discriminator="kind")]
    citation: Text
    facts: Annotated[list[Text], Field(min_length=1)]

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is QuickGELU."""
        return self.activation == "quick_gelu"


def card_names() -> list[str]:
    """Names of all cards."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


@cache
def card(name: str) -> Card:
    """The card of published weights.

    Raises:
        ValueError: there is no such card.
    """
    if name not in card_names():
        raise ValueError(f"unknown published backbone {name!r}; known are {', '.join(card_names())}")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return validate(Card, parse_yaml(text, f"the card of {name}"), f"the card of {name}")
