"""An ensemble of copies of a method within one model, whose cosines are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, ParameterGroup, StepInfo
from cmer.methods.items import Items
from cmer.methods.layers.settings import MemberOptions


class Ensemble(Method):
    """K copies of a method that read the same frozen features, each with its own initial weights and dropout.

    An embedding is [m_1, ..., m_K] / sqrt(K) with the members' unit embeddings m_k. It is itself a unit vector, and a
    dot product of two such embeddings is the mean of the members' cosines. Every member has its own loss and
    temperature, on the same batches. The mean of the losses is minimised, so a member's gradient is that of its own
    loss divided by K, which AdamW cancels.

    Args:
        options: settings of the members.
        context: context of the run.
        members: the copies, at least two.
    """

    def __init__(self, options: MemberOptions, context: Context, members: Sequence[Method]) -> None:
        super().__init__(options, context)
        self.members = nn.ModuleList(members)
        self.image_blocks, self.text_blocks = members[0].image_blocks, members[0].text_blocks

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, K e] from frozen features."""
        return _joined([member.encode_images(batch) for member in self._each()])

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, K e] from frozen features."""
        return _joined([member.encode_texts(batch) for member in self._each()])

    def image_outputs(self, batch: Features | Tensor) -> Items:
        """See `Method`: those of all members."""
        return [member.image_outputs(batch) for member in self._each()]

    def text_outputs(self, batch: Features | Tokens) -> Items:
        """See `Method`: those of all members."""
        return [member.text_outputs(batch) for member in self._each()]

    def image_items(self, outputs: Items) -> Items:
        """See `Method`: unit embeddings."""
        return _joined([member.image_items(own) for member, own in zip(self._each(), outputs, strict=True)])

    def text_items(self, outputs: Items) -> Items:
        """See `Method`: unit embeddings."""
        return _joined([member.text_items(own) for member, own in zip(self._each(), outputs, strict=True)])

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """The mean of the members' losses, by name."""
        scale = math.sqrt(len(self.members))
        count = len(self.members)
        parts = zip((scale * images).chunk(count, -1), (scale * texts).chunk(count, -1), strict=True)
        found = [m.losses(*own, batch, memory, step) for m, own in zip(self._each(), parts, strict=True)]
        return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}

    def prompt_share(self) -> float:
        """See `Method`."""
        return self._each()[0].prompt_share()

    def parameter_groups(self) -> list[ParameterGroup]:
        """See `Method`: those of a member."""
        return [
            ParameterGroup(f"members.*.{group.pattern}", group.rate, group.decay)
            for group in self._each()[0].parameter_groups()
        ]

    def _each(self) -> list[Method]:
        return cast("list[Method]", list(self.members))


def _joined(embeddings: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(embeddings), dim=-1) / math.sqrt(len(embeddings))
