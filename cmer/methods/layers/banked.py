"""Base class of embedding methods on frozen features, whose batches can have a bank's entries as further negatives."""

from __future__ import annotations

from torch import Tensor

from cmer.losses.bank import Bank
from cmer.losses.infonce import contrastive_with
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import StepInfo
from cmer.methods.layers.embedding import EmbeddingMethod
from cmer.methods.layers.settings import EmbeddingOptions, MemberOptions


class BankedMethod(EmbeddingMethod):
    """An embedding method whose frozen features make it cheap to embed the whole train split again and again.

    A subclass whose options are not `MemberOptions` has no bank.
    """

    options: EmbeddingOptions

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """The loss selected in the options; with a bank, the contrastive loss against its negatives as well."""
        if not isinstance(memory, Bank):
            return super().losses(images, texts, batch, memory, step)
        positives = batch.positives() if self.options.soft_multi_positive else None
        return {"batch": contrastive_with(images, texts, self.heads.scale(), positives, memory, batch)}

    def bank(self, train_images: int) -> Bank | None:
        """See `Method`."""
        options = self.options
        if not isinstance(options, MemberOptions) or not options.bank_refresh:
            return None
        return Bank(train_images, self.heads.dim, options.soft_multi_positive, options.bank_refresh)
