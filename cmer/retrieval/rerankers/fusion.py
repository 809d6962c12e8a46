"""Late fusion of the scores of two runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from cmer.config.base import Name, Several
from cmer.registry import RERANKERS
from cmer.retrieval.reranking import Directed, Reranker, Setting
from cmer.retrieval.scores import Scored

Weights = Annotated[Several[Annotated[float, Field(ge=0.0, le=10.0)]], Field(max_length=100)]


@RERANKERS.register("fusion")
class Fusion(Reranker):
    """The scores of a run plus the weighted scores of a partner run.

    The partner's scores are scaled to the run's standard deviation, both measured on validation, so that a weight of 1
    counts both alike. Test queries do not affect each other.
    """

    kind: Literal["fusion"] = "fusion"
    partner: Name = Field(description="run whose scores are added")
    weights: Weights = Field(
        default=[0.0, 0.25, 0.5, 1.0, 2.0], description="weights of its scores to choose from on validation"
    )

    @property
    def title(self) -> str:
        """See `RerankerOptions`."""
        return f"fused with {self.partner}"

    @property
    def partner_run(self) -> str | None:
        """See `RerankerOptions`."""
        return self.partner

    def grid(self, validation: Scored) -> list[Setting]:
        """See `Reranker`."""
        assert validation.partner is not None
        spread = np.std(validation.partner, dtype=np.float64)
        scale = float(np.std(validation.scores, dtype=np.float64) / spread) if spread else 0.0
        return [{"weight": weight, "scale": scale} for weight in sorted(self.weights)]

    def rescorer(self, scored: Scored) -> Callable[[Setting], Directed]:
        """See `Reranker`."""

        def rescored(setting: Setting) -> Directed:
            assert scored.partner is not None
            total = scored.scores + np.float32(setting["weight"] * setting["scale"]) * scored.partner
            return Directed(total, total)

        return rescored
