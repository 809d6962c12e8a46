"""Settings of the method: what planning reads, so no torch here."""

from cmer.config.base import Fraction
from cmer.methods.layers.settings import EmbeddingOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("gained_probe")
class GainedProbeOptions(EmbeddingOptions):
    gain: Fraction = 0.5
