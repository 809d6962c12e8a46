"""Settings of hvsa."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cmer.methods.layers.cnn_settings import CnnGruOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("hvsa")
class HvsaOptions(CnnGruOptions):
    """HVSA (ResNet-18 with key-entity attention, GRU of 2,400, learned weights of the losses)."""

    train_words: bool = Field(
        default=False, description="train the word vectors, which the printed parameter count leaves out"
    )
    input_biases: bool = Field(
        default=False, description="biases on the GRU's input; the printed parameter count fits with and without them"
    )
    weighting: Literal["learned", "equal"] = Field(
        default="learned", description="weights of the two losses: learned from their values, or 1 each"
    )
