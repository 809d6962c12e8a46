"""A vision-language model of transformers that answers one question per granularity about each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from cmer.captioning.base import Captioner, RichText
from cmer.captioning.vlm.options import VlmOptions
from cmer.errors import UserError
from cmer.features.device import device
from cmer.io import expand, sha256
from cmer.registry import CAPTIONERS

NEEDED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Files of a model on the hub that are fetched: no second copy of the weights in another format."""


@CAPTIONERS.register("vlm")
class Vlm(Captioner):
    """Structured captions of a vision-language model (LLaVA family), one answer per prompt.

    TRSLLaVA (arXiv 2512.10596) has such a model write rich texts of remote-sensing images; its model, prompts and
    decoding are not public, so those here are chosen. Greedy decoding gives the same text each time on one machine.
    Prompts are padded on the left, so that a text does not depend on the other images of its batch, except for
    rounding.

    Raises:
        UserError: the model cannot be had or loaded, or its processor has no chat template.
    """

    options: VlmOptions

    def __init__(self, options: VlmOptions) -> None:
        super().__init__(options)
        self.folder = _folder(options.model)
        logging.disable_progress_bar()
        try:
            self.processor = AutoProcessor.from_pretrained(self.folder, local_files_only=True)
            self.model = AutoModelForImageTextToText.from_pretrained(
                self.folder, dtype=getattr(torch, options.dtype), local_files_only=True
            )
        except Exception as error:  # a folder may hold anything, and loaders raise nearly anything
            reason = str(error).partition("\n")[0]
            raise UserError(f"cannot load the vision-language model {options.model}: {reason}") from error
        if not getattr(self.processor, "chat_template", None):
            raise UserError(
                f"the processor of {options.model} has no chat template; use a model in transformers' layout"
            )
        self.processor.tokenizer.padding_side = "left"
        self.model.to(device()).eval()

    def origin(self) -> dict[str, Any]:
        """See `Captioner`: the hash of each file of the model."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return {"files": {path.name: sha256(path) for path in files}}

    def caption(self, files: Sequence[str], images: Sequence[Image.Image]) -> list[RichText]:
        """See `Captioner`."""
        answers = {granularity: self._answers(prompt, images) for granularity, prompt in self.options.prompts.items()}
        return [{granularity: [given[row]] for granularity, given in answers.items()} for row in range(len(images))]

    @torch.inference_mode()
    def _answers(self, prompt: str, images: Sequence[Image.Image]) -> list[str]:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        asked = self.processor(images=list(images), text=[text] * len(images), padding=True, return_tensors="pt")
        asked = asked.to(device(), self.model.dtype)  # casts pixels, not token ids
        limit = self.options.max_new_tokens
        output = self.model.generate(**asked, do_sample=False, num_beams=1, max_new_tokens=limit)
        answers: list[str] = self.processor.batch_decode(
            output[:, asked["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers


def _folder(model: str) -> Path:
    """The folder of a model; a name on the hub is fetched into its cache first."""
    path = expand(model)
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~", "$")):
        raise UserError(f"the vision-language model {path} is not a folder; correct `model`")
    try:
        return Path(snapshot_download(model, allow_patterns=NEEDED))
    except Exception as error:  # of the network, the hub, or an invalid name
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"cannot fetch {model} from the Hugging Face hub: {reason}; give its folder as `model`"
        ) from error
