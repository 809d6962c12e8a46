"""CMPAGL: alignment before fusion with a global-local window transformer (arXiv 2411.14704)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cmer.backbones.base import Features, Tokens
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.batch.optimised_triplet import optimised_triplet
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, ParameterGroup, StepInfo
from cmer.methods.cmpagl.draws import hard_negatives, mask_words
from cmer.methods.cmpagl.fusion import FusionEncoder
from cmer.methods.cmpagl.gswin import Gswin
from cmer.methods.cmpagl.options import CmpaglOptions
from cmer.methods.items import Items, count_items
from cmer.methods.layers.bert import PRETRAINED_RATE, TextEncoder, load_bert, mean_state
from cmer.methods.layers.draws import step_generator
from cmer.methods.layers.heads import unit
from cmer.methods.layers.pairs import score_pairs
from cmer.methods.layers.stages import StageMethod
from cmer.registry import METHODS

TEMPERATURE = 0.07


class Alignment(nn.Module):
    """Linear projections of F_cls and G_cls to unit embeddings in one space."""

    scale: Tensor

    def __init__(self, image_width: int, text_width: int, dim: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(image_width, dim), nn.Linear(text_width, dim)
        self.register_buffer("scale", torch.tensor(1 / TEMPERATURE), persistent=False)


@METHODS.register("cmpagl")
class Cmpagl(StageMethod):
    """L = L_ITC + L_OTri + L_MLM + L_ITM; retrieval by the unit embeddings of the pre-alignment.

    F_cls is the mean of the image tokens, G_cls that of the states after the first half of BERT: halfway, the state of
    [CLS] hardly depends on the text yet. L_ITC is the symmetric InfoNCE with a fixed temperature of 0.07. L_MLM and
    L_ITM read the fused text, that of L_ITM against one hard negative text per image and image per text. In all losses,
    pairs with the same text or the same image are positives of each other. Without pre-alignment, L_ITC and L_OTri are
    absent, negatives are drawn uniformly, and every pair is scored by its matching logit, which ranks as the
    probability does and does not saturate.

    CMPAGL's code is not public. Its abstract names the parts; sizes, projections, weights of the losses, treatment of
    repeated captions, and learning rates are chosen, see `gswin`, `fusion` and `optimised_triplet` for theirs.
    """

    pairs_per_block = 1024
    options: CmpaglOptions

    def __init__(self, options: CmpaglOptions, context: Context) -> None:
        super().__init__(options, context)
        self.seed = context.seed
        model = load_bert(options.text_model, options.pretrained)
        width = model.config.hidden_size
        self.image, self.text = Gswin(options), TextEncoder(model.bert, model.config.num_hidden_layers // 2)
        self.fusion = FusionEncoder(model.bert, self.image.width)
        self.words = model.cls.predictions
        self.matching = nn.Linear(width, 1)
        self.alignment: Alignment | None = None
        if options.pre_alignment:
            self.alignment = Alignment(self.image.width, width, options.embedding)

    def encode_images(self, batch: Features | Tensor) -> Items:
        """Tokens [B, N, C'] and, with pre-alignment, the unit embedding [B, e]."""
        assert isinstance(batch, Tensor)
        tokens = self.image(batch)
        if self.alignment is None:
            return {"tokens": tokens}
        return {"tokens": tokens, "embedding": unit(self.alignment.image(tokens.mean(dim=1)))}

    def encode_texts(self, batch: Features | Tokens) -> Items:
        """Word pieces, their mask and states [B, L, d] and, with pre-alignment, the unit embedding [B, e]."""
        assert isinstance(batch, Tokens)
        states = self.text(batch.ids, batch.mask)
        items = {"ids": batch.ids, "mask": batch.mask, "states": states}
        if self.alignment is None:
            return items
        return items | {"embedding": unit(self.alignment.text(mean_state(states, batch.mask)))}

    def scored_part(self, items: Items) -> Items:
        """See `Method`: the unit embeddings, if there is a pre-alignment."""
        return items if self.alignment is None else items["embedding"]

    def score(self, images: Items, texts: Items) -> Tensor:
        """Cosines of unit embeddings; without pre-alignment, the matching logit of every pair."""
        if self.alignment is not None:
            return super().score(images, texts)
        return score_pairs(self._match, images, texts)

    def losses(
        self, images: Items, texts: Items, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """See the class; masks and negatives depend on seed and step only."""
        positives = batch.positives()
        generator = step_generator(self.seed, step.step, positives.device)
        found: dict[str, Tensor] = {}
        if self.alignment is None:
            logits = torch.zeros(positives.shape, device=positives.device)
        else:
            found, logits = self._align(self.alignment.scale, images["embedding"], texts["embedding"], positives)
        found["mlm"] = self._mlm(images, texts, generator)
        found["itm"] = self._itm(images, texts, logits, positives, generator)
        return found

    def _align(
        self, scale: Tensor, images: Tensor, texts: Tensor, positives: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """L_ITC and L_OTri of unit embeddings, and the logits [B, B] of L_ITC."""
        itc = contrastive(images, texts, scale, positives)
        triplet = optimised_triplet(images, texts, scale, positives, self.options.intra_class)
        return {"itc": itc, "triplet": triplet}, (scale * images @ texts.T).detach()

    def _mlm(self, images: Items, texts: Items, generator: Generator) -> Tensor:
        """L_MLM: cross-entropy of the masked word pieces, predicted from the masked text fused with its image."""
        ids, mask, own = texts["ids"], texts["mask"], torch.arange(count_items(texts), device=texts["ids"].device)
        masked, chosen = mask_words(ids, self.pieces.special, self.pieces.mask, self.pieces.size, generator)
        fused = self.fusion(self.text(masked, mask), mask, own, images["tokens"], own, slice(None))
        return F.cross_entropy(self.words(fused[chosen]), ids[chosen], reduction="sum") / chosen.sum().clamp(min=1)

    def _itm(self, images: Items, texts: Items, logits: Tensor, positives: Tensor, generator: Generator) -> Tensor:
        """L_ITM: binary cross-entropy of the matching pairs and of the hard negatives of both sides."""
        own = torch.arange(len(logits), device=logits.device)
        anchors, other_texts = hard_negatives(logits, positives, generator)
        text_anchors, other_images = hard_negatives(logits.T, positives, generator)
        image_rows, text_rows = torch.cat([own, anchors, other_images]), torch.cat([own, other_texts, text_anchors])
        found = self._match(images, texts, image_rows, text_rows)
        return F.binary_cross_entropy_with_logits(found, (torch.arange(len(found)) < len(own)).to(found))

    def _match(self, images: Items, texts: Items, image_rows: Tensor, text_rows: Tensor) -> Tensor:
        """Matching logits [P] of pairs, from the fused [CLS]."""
        fused = self.fusion(texts["states"], texts["mask"], text_rows, images["tokens"], image_rows, slice(0, 1))
        logits: Tensor = self.matching(fused[:, 0]).squeeze(-1)
        return logits

    def parameter_groups(self) -> list[ParameterGroup]:
        """See `Method`: the BERT's own layers train at a tenth of the rate."""
        return [
            ParameterGroup("text.*", rate=PRETRAINED_RATE),
            ParameterGroup("fusion.layers.*.bert.*", rate=PRETRAINED_RATE),
            ParameterGroup("*"),
        ]
