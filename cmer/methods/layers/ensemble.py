"""An ensemble of trained copies of a method within one model, whose cosines are averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, Method, ParameterGroup, StepInfo
from cmer.methods.items import Items
from cmer.methods.layers.settings import MemberOptions


class Ensemble(Method):
    """K copies of a method that read the same frozen features.

    An embedding is [m_1, ..., m_K] / sqrt(K) with the members' unit embeddings m_k. It is itself a unit vector, and a
    dot product of two such embeddings is the mean of the members' cosines. The members are trained one by one, each
    with a seed of its own, and therefore with initial weights, batches and dropout of its own.

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

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """Not defined, because the members are trained one by one.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("train the members of an ensemble one by one")

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


def of_members(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The trained tensors of an ensemble, from those of its members in order."""
    return {f"members.{number}.{name}": t for number, own in enumerate(weights) for name, t in own.items()}


def _joined(embeddings: Sequence[Items]) -> Tensor:
    return torch.cat(list(embeddings), dim=-1) / math.sqrt(len(embeddings))
