"""Hubness correction with a bank of training queries (querybank normalisation)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmer.config.base import Several
from cmer.registry import RERANKERS
from cmer.retrieval.reranking import Directed, Reranker, Setting, log_mass
from cmer.retrieval.scores import Scored

Betas = Annotated[Several[Annotated[float, Field(ge=0.1, le=100.0)]], Field(max_length=20)]
Weights = Annotated[Several[Annotated[float, Field(ge=0.0, le=4.0)]], Field(max_length=20)]
Masses = NDArray[np.float64]


@RERANKERS.register("querybank")
class Querybank(Reranker):
    """Similarities minus how close the image and the caption are to the training queries, which demotes hubs.

    With unit embeddings v of images and t of captions, S'(i, t) = v_i · t - (a / β) log Σ_c exp(β v_i · t_c) -
    (a / β) log Σ_j exp(β v_j · t), where c runs over the different train captions and j over the train images; a = 0
    leaves S as it is. The first term alone, over a bank of train captions, is the inverted softmax of querybank
    normalisation (Bogolin et al., CVPR 2022) in the log domain; correcting both sides at once and the defaults are
    chosen here. No other test query is read, and S' is again a dot product: of [v, -a b(v), 1] and [t, 1, -a b(t)],
    where b is the bank's log-sum divided by β. An index of embeddings can therefore hold it.
    """

    without_bank: ClassVar[str] = "omit `querybank` for it"

    kind: Literal["querybank"] = "querybank"
    beta: Betas = Field(default=[10.0], description="inverse temperatures β to choose from on validation")
    weight: Weights = Field(default=[1.0], description="weights a of the correction to choose from on validation")

    @property
    def reads_bank(self) -> bool:
        """See `RerankerOptions`."""
        return True

    @property
    def title(self) -> str:
        """See `RerankerOptions`."""
        return "hubness correction with a bank of training queries"

    def grid(self, validation: Scored) -> list[Setting]:
        """See `Reranker`."""
        return [{"beta": beta, "weight": weight} for beta, weight in product(sorted(self.beta), sorted(self.weight))]

    def rescorer(self, scored: Scored) -> Callable[[Setting], Directed]:
        """See `Reranker`."""
        images, captions, bank = self.embedded(scored)

        @cache
        def masses(beta: float) -> tuple[Masses, Masses]:
            return log_mass(images, bank.captions, 1 / beta)[:, None], log_mass(captions, bank.images, 1 / beta)

        def rescored(setting: Setting) -> Directed:
            beta, weight = setting["beta"], setting["weight"]
            of_images, of_captions = masses(beta)
            total = scored.scores - weight / beta * of_images - weight / beta * of_captions
            return Directed(total, total)

        return rescored
