"""What every method has; a method's own settings lie in its folder of `cmer/methods/`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from cmer.config.base import Model, validate_part
from cmer.registry import METHOD_OPTIONS


class MethodOptions(Model):
    """Settings of a method, and what planning and reporting must know of it without importing torch.

    Class attributes:
        trains: whether there is anything to train.
        own_towers: whether the method brings its own towers and needs no backbone.
        image_input: what `encode_images` takes: frozen features, or pixels.
        gpu: whether a method with towers of its own has a GPU to itself.
        note: what a reader of its row in a table of costs should know.
    """

    trains: ClassVar[bool] = True
    own_towers: ClassVar[bool] = False
    image_input: ClassVar[Literal["features", "pixels"]] = "features"
    gpu: ClassVar[bool] = False
    note: ClassVar[str] = ""

    @property
    def text_input(self) -> Literal["features", "tokens"]:
        """What `encode_texts` takes: frozen features, or tokens."""
        return "tokens" if self.image_input == "pixels" else "features"

    @property
    def usual_inputs(self) -> Literal["stored", "online"]:
        """What a run reads that does not say: stored features, where these can stand for the towers."""
        return "online" if self.image_input == "pixels" else "stored"

    @property
    def runs_backbone(self) -> bool:
        """Whether the method runs a tower of the backbone itself; otherwise stored features serve."""
        return not self.own_towers and (self.image_input == "pixels" or self.text_input == "tokens")

    def modules(self) -> tuple[str, ...]:
        """Modules found by a name in these settings, beside the method's own: they count for its code digest."""
        return ()

    def published(self) -> Self:
        """The settings of the published system."""
        return type(self)()

    def differences(self) -> dict[str, str]:
        """Settings in effect that are not those of the published system, by name, in words."""
        published = self.published()
        return {
            name: _words(name, getattr(self, name))
            for name in type(self).model_fields
            if getattr(self, name) != getattr(published, name)
        }

    def variant_title(self) -> str | None:
        """Title of a named variant; None for the published system itself, which the tables' printed name stands for."""
        return None


def _words(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {str(value).replace('_', ' ')}"


def parse_options(method: str, data: Any, key: str = "options") -> MethodOptions:
    """The settings of a method.

    Raises:
        ValueError: the method is unknown, or a setting is wrong.
    """
    if isinstance(data, MethodOptions):
        return data
    model: type[MethodOptions] = METHOD_OPTIONS.get(method)
    return validate_part(model, data, key)


def parse_options_field(data: Any) -> Any:
    """`data` with its `options` parsed as those of its `method`: a "before" validator of models that hold both."""
    if isinstance(data, dict) and isinstance(data.get("method"), str):
        return data | {"options": parse_options(data["method"], data.get("options", {}))}
    return data
