"""Settings that all methods have in common; those of one method are in its folder of `cmer/methods/`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Self

from cmer.config.base import Model, validate_part
from cmer.registry import METHOD_OPTIONS

Scoring = Literal["embedding", "conditioned", "pair"]
"""`embedding`: dot products of unit embeddings [B, e]; `conditioned`: the items of one side are adapted to those of the
other; `pair`: every pair needs a forward pass."""


class RichInput(NamedTuple):
    """Rich texts that a method reads in place of images.

    Attributes:
        captioner: name of the captioner that wrote them.
        query: granularity of the texts that are queries in place of captions, and are then left out of the gallery;
            None: captions are the queries.
    """

    captioner: str
    query: str | None


class MethodOptions(Model):
    """Settings of a method, and its properties that planning and reporting need without importing torch.

    Class attributes:
        trains: whether the method has anything to train.
        own_towers: whether the method brings its own towers and needs no backbone.
        image_input: input of `encode_images`: frozen features, pixels, or rich texts of the images.
        note: remark for readers of the method's row in a cost table.
    """

    trains: ClassVar[bool] = True
    own_towers: ClassVar[bool] = False
    image_input: ClassVar[Literal["features", "pixels", "captions"]] = "features"
    note: ClassVar[str] = ""

    @property
    def scoring(self) -> Scoring:
        """How the method scores images against texts."""
        return "embedding"

    @property
    def text_input(self) -> Literal["features", "tokens"]:
        """Input of `encode_texts`: frozen features or tokens."""
        return "features" if self.image_input == "features" else "tokens"

    @property
    def usual_inputs(self) -> Literal["stored", "online"]:
        """Default of a run's `inputs`: stored features if they can replace the towers, otherwise online."""
        return "stored" if self.image_input == "features" else "online"

    @property
    def runs_backbone(self) -> bool:
        """Whether the method runs a tower of the backbone; if not, stored features are sufficient."""
        return not self.own_towers and (self.image_input == "pixels" or self.text_input == "tokens")

    @property
    def rich(self) -> RichInput | None:
        """The rich texts that stand for the images if `image_input` is captions, otherwise None."""
        return None

    @property
    def towers(self) -> str:
        """Name of the method's own image towers in tables: as the paper prints it, if they are of that size."""
        return "own towers"

    @property
    def gpu(self) -> bool:
        """Whether a method with its own towers needs a GPU of its own."""
        return False

    @property
    def protocols(self) -> tuple[str, ...] | None:
        """Label protocols of the test, fewer where each costs a forward pass per pair; None: all of them."""
        return None

    def without_weights(self) -> Self:
        """The same method with random weights if pretrained ones would have to be fetched for its own towers."""
        return self

    def places(self) -> list[str]:
        """Files and folders of the user that the method's own towers are read from, as the config has them."""
        return []

    def modules(self) -> tuple[str, ...]:
        """Modules named in these settings, in addition to the method's own; the code digest includes them."""
        return ()

    @property
    def copies(self) -> int:
        """Number of trainings of the method, one after another, whose results form one model."""
        return 1

    def alone(self) -> Self:
        """The settings of one of these trainings."""
        return self

    def held_pairs(self, batch_size: int) -> int:
        """Pairs of earlier batches that every training batch is scored against."""
        return 0

    def scored_pairs(self, batch_size: int) -> int:
        """Pairs of an image and a text that a training step scores: all of the batch, unless the method draws some."""
        return batch_size**2

    def published(self) -> Self:
        """The settings of the published system."""
        return type(self)()

    def differences(self) -> dict[str, str]:
        """Settings in effect that differ from the published system: name → description in words."""
        published = self.published()
        return {
            name: _words(name, getattr(self, name))
            for name in type(self).model_fields
            if getattr(self, name) != getattr(published, name)
        }

    def variant_title(self) -> str | None:
        """Title of a named variant; None for the published system, for which tables use the printed name."""
        return None


def _words(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {str(value).replace('_', ' ')}"


def parse_options(method: str, data: Any, key: str = "options") -> MethodOptions:
    """Parse the settings of a method.

    Raises:
        ValueError: the method is unknown, or a setting is invalid.
    """
    if isinstance(data, MethodOptions):
        return data
    model: type[MethodOptions] = METHOD_OPTIONS.get(method)
    return validate_part(model, data, key)


def parse_options_field(data: Any) -> Any:
    """Parse `options` in `data` with the model of its `method`: a "before" validator for models with both fields."""
    if isinstance(data, dict) and isinstance(data.get("method"), str):
        return data | {"options": parse_options(data["method"], data.get("options", {}))}
    return data
