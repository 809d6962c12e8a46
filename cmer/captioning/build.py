"""Construction of captioners."""

from __future__ import annotations

from cmer.captioning.base import Captioner
from cmer.config.captioners import CaptionerOptions
from cmer.registry import CAPTIONERS


def build(options: CaptionerOptions) -> Captioner:
    """The captioner that the options describe, on the GPU if it runs a model and there is one.

    Raises:
        UserError: its model or file cannot be read.
    """
    captioner: Captioner = CAPTIONERS.get(options.kind)(options)
    return captioner
