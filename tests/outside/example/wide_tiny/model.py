"""The towers."""

from cmer.backbones.tiny.model import Tiny
from cmer.registry import BACKBONES


@BACKBONES.register("wide_tiny")
class WideTiny(Tiny):
    pass
