"""CMER: text adaptation, a Focus-Adapter side branch beside the frozen image tower, recycled negatives, scene prompts.

The paper's ablation rows are settings of this method: v1 (text only), v2 (+ Focus-Adapter), d1 (+ negative queue),
d2 (+ scene prompts). With `label_dropout` 0.5 it also handles plain queries.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cmer.backbones.base import BlockSpec, Features, Tokens
from cmer.errors import UserError
from cmer.losses.hinge import queue_hinge
from cmer.losses.infonce import memory_infonce
from cmer.losses.memory import Memory, PairIds
from cmer.losses.queue import NegativeQueue
from cmer.methods.base import Context, StepInfo
from cmer.methods.cmer.options import CmerOptions
from cmer.methods.items import Items
from cmer.methods.layers.banked import BankedMethod
from cmer.methods.layers.heads import unit
from cmer.methods.layers.lora import add_lora
from cmer.methods.layers.side_branch import SideBranch
from cmer.registry import METHODS


@METHODS.register("cmer")
class Cmer(BankedMethod):
    """v = normalise(x + q), where x is the frozen unit image embedding and q the side branch over the frozen blocks.

    No gradient enters the image tower, so none of its activations are kept. The text tower is adapted by LoRA or, to
    avoid its backward pass too, by a side branch of its own whose regions are whole captions (this project's choice,
    not the paper's).
    """

    options: CmerOptions

    def __init__(self, options: CmerOptions, context: Context) -> None:
        super().__init__(options, context)
        self.image_branch = self.text_branch = None
        shapes, features = context.backbone_shapes(), context.features
        if options.focus_adapter:
            self.image_blocks = features.blocks or []
            self.image_branch = self._branch(
                shapes.blocks, self.image_blocks, options.focus_field, options.focus_dropout, options.focus_drop_path
            )
        if options.text == "side_branch":
            self.text_blocks = features.text_blocks or []
            self.text_branch = self._branch(shapes.text_blocks, self.text_blocks, 0)
        else:
            assert self.backbone is not None
            add_lora(self.backbone, self.backbone.attachment_points().text_linears, options.lora_rank)

    def _branch(
        self,
        specs: Sequence[BlockSpec],
        blocks: Sequence[int],
        field: int,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> SideBranch:
        if not blocks:
            raise UserError("a side branch has no block to read; list blocks in the backbone's features (null: all)")
        options = self.options
        return SideBranch(specs, blocks, options.hidden, options.heads, field, self.heads.dim, dropout, drop_path)

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] from frozen features."""
        assert isinstance(batch, Features)
        x = self.heads.images(batch.pooled)  # before the branch: the order of dropout's draws is part of the results
        return x if self.image_branch is None else unit(x + self.image_branch(batch))

    def encode_texts(self, batch: Features | Tokens) -> Items:
        """Unit embeddings [B, e] from tokens (LoRA) or frozen features (side branch)."""
        return self.text_items(self.text_outputs(batch))

    def image_outputs(self, batch: Features | Tensor) -> Items:
        """See `Method`: the frozen embedding, and the side branch's output if there is one."""
        assert isinstance(batch, Features)
        return (batch.pooled,) if self.image_branch is None else (batch.pooled, self.image_branch(batch))

    def text_outputs(self, batch: Features | Tokens) -> Items:
        """See `Method`: the tower's embedding, and the side branch's output if there is one."""
        if isinstance(batch, Tokens):
            assert self.backbone is not None
            batch = self.backbone.encode_texts(batch)
        return (batch.pooled,) if self.text_branch is None else (batch.pooled, self.text_branch(batch))

    def image_items(self, outputs: Items) -> Items:
        """See `Method`: unit embeddings."""
        pooled, *added = outputs
        x = self.heads.images(pooled)
        return unit(x + added[0]) if added else x

    def text_items(self, outputs: Items) -> Items:
        """See `Method`: unit embeddings."""
        pooled, *added = outputs
        s = self.heads.texts(pooled)
        return unit(s + added[0]) if added else s

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """L = L_batch + weight * L_queue (Eq. 22)."""
        losses = super().losses(images, texts, batch, memory, step)
        if isinstance(memory, NegativeQueue):
            losses["queue"] = self.options.queue_weight * self._queue_loss(images, texts, batch, memory)
        return losses

    def _queue_loss(self, images: Tensor, texts: Tensor, batch: PairIds, queue: NegativeQueue) -> Tensor:
        options = self.options
        if options.queue_loss == "infonce":
            return memory_infonce(images, texts, self.heads.scale(), queue, batch)
        return queue_hinge(images, texts, batch, queue, options.margin, options.difficulty, options.queue_loss)

    def memory(self, batch_size: int) -> NegativeQueue | None:
        """A new, empty queue of `queue_batches` batches."""
        length = self.options.queue_batches * batch_size
        return NegativeQueue(length, self.heads.dim, self.options.soft_multi_positive) if length else None

    def prompt_share(self) -> float:
        """See `Method`."""
        return 1 - self.options.label_dropout if self.options.scene_prompt else 0.0
