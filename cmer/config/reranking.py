"""Settings that all rerankers have in common; those of one kind are in its module of `cmer/retrieval/rerankers/`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny

from cmer.config.backbones import parse_kind
from cmer.config.base import Distinct, Model
from cmer.config.methods import MethodOptions
from cmer.registry import RERANKERS


class RerankerOptions(Model):
    """A reranker, which gives one more row for each of its runs, named {run}.{reranker}.

    Class attributes:
        without_bank: what to do about a run that has no bank.
    """

    without_bank: ClassVar[str] = "leave it out"

    kind: str = Field(description="module of cmer/retrieval/rerankers/, or entry point of another package")
    runs: Distinct[str] = Field(
        default=[], description="names of the runs that are reranked, or patterns such as lite.*"
    )

    @property
    def title(self) -> str:
        """The reranker in words, as in tables."""
        return self.kind

    @property
    def transductive(self) -> bool:
        """Whether the score of a query depends on the other test queries."""
        return False

    @property
    def partner_run(self) -> str | None:
        """Another run whose scores it reads."""
        return None

    @property
    def reads_bank(self) -> bool:
        """Whether it reads the embeddings of the train queries, which a method that scores pairs does not have."""
        return False

    def require(self, options: MethodOptions) -> None:
        """Raise `ValueError`, which says why and what to do, if a method with these settings lacks what it reads."""
        if self.reads_bank and options.scoring != "embedding":
            raise ValueError(f"its method scores pairs, so train queries have no embeddings; {self.without_bank}")


def parse_reranker(data: Any, key: str = "reranker") -> RerankerOptions:
    """Parse the settings of a reranker with the model of its `kind`.

    Raises:
        ValueError: the kind is missing or unknown, or a setting is invalid.
    """
    return data if isinstance(data, RerankerOptions) else parse_kind(RERANKERS, data, key)


AnyReranker = Annotated[SerializeAsAny[RerankerOptions], BeforeValidator(parse_reranker)]
