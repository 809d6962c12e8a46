"""Settings of the vlm captioner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmer.config.base import Text, Threads
from cmer.config.captioners import CaptionerOptions, Granularity
from cmer.registry import CAPTIONER_OPTIONS

KEYWORDS = (
    "Describe this overhead image in keywords, in exactly this form: scene: ...; main objects: ...; quantity: ...; "
    "colours: ...; layout: ...; surroundings: ..."
)
SENTENCE = (
    "Describe this overhead image in one sentence: the scene, its main objects and their number, their colours and "
    "layout, and the surroundings."
)
PARAGRAPH = (
    "Describe this overhead image in a paragraph of four to six sentences: the scene, the main objects, how many there "
    "are, their colours, their layout, and the surroundings. Mention only what is visible."
)


@CAPTIONER_OPTIONS.register("vlm")
class VlmOptions(CaptionerOptions):
    """A vision-language model of transformers, such as LLaVA, with greedy decoding."""

    model: Text = Field(
        default="llava-hf/llava-1.5-7b-hf",
        description="folder, or name on the Hugging Face hub; environment variables of a path are expanded",
    )
    prompts: Annotated[dict[Granularity, Annotated[Text, Field(max_length=4000)]], Field(min_length=1)] = Field(
        default={"keywords": KEYWORDS, "sentence": SENTENCE, "paragraph": PARAGRAPH},
        description="granularity → question that the model answers about every image",
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=200, description="maximum length of an answer; longer ones are cut off"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="bfloat16", description="type of the weights")
    threads: Threads = Field(default=2, description="torch threads; on a CPU they affect the result")

    @property
    def gpu(self) -> bool:
        """See `CaptionerOptions`."""
        return True

    @property
    def memory_mb(self) -> int:
        """See `CaptionerOptions`: LLaVA-1.5-7B has 14 GB of weights in 16 bits."""
        return 32000

    @property
    def cpu_threads(self) -> int:
        """See `CaptionerOptions`."""
        return self.threads
