"""Settings of trsllava."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cmer.config.captioners import Granularity
from cmer.config.methods import MethodOptions, RichInput, Scoring
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("trsllava")
class TrsllavaOptions(MethodOptions):
    """Retrieval by rich texts of the images; nothing is trained."""

    trains: ClassVar[bool] = False
    image_input: ClassVar[Literal["features", "pixels", "captions"]] = "captions"

    captioner: str = Field(default="llava", description="entry of `captioners` that writes the texts of the images")
    reduce: Literal["max", "mean"] = Field(
        default="max", description="score of an image: that of its best text, or the mean over its texts"
    )
    encoder: Literal["backbone", "bm25"] = Field(
        default="backbone", description="cosine of the backbone's text tower, or BM25, which needs no backbone"
    )
    query: Literal["captions", "rich"] = Field(
        default="captions", description="queries: the dataset's captions, or rich texts of the target images"
    )
    query_granularity: Granularity = Field(
        default="sentence", description="with `query: rich`: the texts that are queries, and left out of the gallery"
    )

    @property
    def own_towers(self) -> bool:  # type: ignore[override]
        """BM25 needs no backbone."""
        return self.encoder == "bm25"

    @property
    def scoring(self) -> Scoring:
        """See `MethodOptions`: an image has several texts."""
        return "conditioned"

    @property
    def rich(self) -> RichInput:
        """See `MethodOptions`."""
        return RichInput(self.captioner, self.query_granularity if self.query == "rich" else None)

    def variant_title(self) -> str:
        """See `MethodOptions`: the name as published."""
        return "TRSLLaVA"

    def differences(self) -> dict[str, str]:
        """See `MethodOptions`; every row says what its queries are."""
        return super().differences() | {"query": f"query: {self.query}"}
