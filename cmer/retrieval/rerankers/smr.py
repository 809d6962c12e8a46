"""Similarity-matrix reweighting (SMR) of CMPAGL."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmer.config.base import Several
from cmer.registry import RERANKERS
from cmer.retrieval.reranking import Directed, Reranker, Scores, Setting, log_mass
from cmer.retrieval.scores import Floats, Scored

Exponents = Annotated[Several[Annotated[float, Field(ge=0.0, le=4.0)]], Field(max_length=20)]
"""Every pair of exponents is tried; each scores all validation images and captions again."""
Logs = NDArray[np.float64]


@RERANKERS.register("smr")
class Smr(Reranker):
    """Similarities weighted by how probable the pair is among the image's captions and among the caption's images.

    With P→ = softmax of S / τ over the captions of each image and P← = softmax over the images of each caption, the new
    score is S · P→^γ₁ · P←^γ₂, elementwise; γ₁ = γ₂ = 0 leaves S as it is, and γ₁ = γ₂ = 1 is a dual softmax. CMPAGL
    (arXiv 2411.14704) names the two weights only; this form is chosen here. A pair with a negative similarity stays
    below all pairs with a positive one.

    `queries: test` reads all test queries at once, as the published system presumably does, which a search engine
    cannot: it is transductive. With `queries: train`, the other queries are those of the training set, and every test
    query is scored by itself: P→ of a caption as the query is over itself and the train captions, P← of an image as
    the query over itself and the train images.
    """

    without_bank: ClassVar[str] = "use `queries: test`, or leave it out"

    kind: Literal["smr"] = "smr"
    gamma1: Exponents = Field(
        default=[0.0, 0.25, 0.5, 1.0, 2.0], description="exponents of P→ to choose from on validation"
    )
    gamma2: Exponents = Field(
        default=[0.0, 0.25, 0.5, 1.0, 2.0], description="exponents of P← to choose from on validation"
    )
    temperature: Annotated[float, Field(ge=0.01, le=10.0)] = Field(default=0.07, description="τ of both softmaxes")
    queries: Literal["test", "train"] = Field(
        default="test", description="which other queries a query is compared with: all test queries, or the train set's"
    )

    @property
    def title(self) -> str:
        """See `RerankerOptions`."""
        return "SMR" if self.transductive else "SMR with a bank of training queries"

    @property
    def transductive(self) -> bool:
        """See `RerankerOptions`."""
        return self.queries == "test"

    @property
    def reads_bank(self) -> bool:
        """See `RerankerOptions`."""
        return not self.transductive

    def grid(self, validation: Scored) -> list[Setting]:
        """See `Reranker`."""
        return [{"gamma1": one, "gamma2": two} for one, two in product(sorted(self.gamma1), sorted(self.gamma2))]

    def rescorer(self, scored: Scored) -> Callable[[Setting], Directed]:
        """See `Reranker`."""
        logits = scored.scores / np.float64(self.temperature)
        captions = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        images = logits - np.logaddexp.reduce(logits, axis=0, keepdims=True)
        if self.queries == "test":
            return lambda setting: Directed(*[_weighted(scored.scores, captions, images, setting)] * 2)
        own_images, own_captions, bank = self.embedded(scored)
        known_images = log_mass(own_captions, bank.images, self.temperature)
        known_captions = log_mass(own_images, bank.captions, self.temperature)[:, None]
        by_image = logits - np.logaddexp(logits, known_images)
        by_caption = logits - np.logaddexp(logits, known_captions)
        return lambda setting: Directed(
            _weighted(scored.scores, captions, by_image, setting),
            _weighted(scored.scores, by_caption, images, setting),
        )


def _weighted(scores: Floats, captions: Logs, images: Logs, setting: Setting) -> Scores:
    return scores * np.exp(setting["gamma1"] * captions + setting["gamma2"] * images)
