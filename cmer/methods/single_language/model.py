"""Single Language: full fine-tuning of CLIP (Al Rahhal et al. 2022, the English-only variant)."""

from __future__ import annotations

from cmer.methods.base import Context
from cmer.methods.layers.towers import TowerMethod
from cmer.methods.single_language.options import SingleLanguageOptions
from cmer.registry import METHODS


@METHODS.register("single_language")
class SingleLanguage(TowerMethod):
    """Every weight of both towers and the temperature train; 151,277,313 parameters on ViT-B-32.

    The source states neither schedule nor batch size; here the project's training loop is used with a small learning
    rate.
    """

    def __init__(self, options: SingleLanguageOptions, context: Context) -> None:
        super().__init__(options, context)
        self.backbone.requires_grad_(True)
        self.heads.requires_grad_(True)
