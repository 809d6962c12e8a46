"""PIR: prior instruction representation (Pan et al., ACM Multimedia 2023)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cmer.backbones.base import Features, Preprocess, Tokens
from cmer.losses.affiliation import affiliation
from cmer.losses.batch.contrastive import contrastive
from cmer.losses.memory import Memory, PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.layers.bert import TextEncoder, load_bert
from cmer.methods.layers.cnn import CnnStages
from cmer.methods.layers.heads import limited_scale, unit
from cmer.methods.layers.stages import StageMethod
from cmer.methods.layers.timm_towers import Frozen, timm_tower
from cmer.methods.pir.attention import ProgressiveAttention
from cmer.methods.pir.options import SWIN, PirOptions
from cmer.registry import METHODS

TEMPERATURE = 0.07
MAX_TOKENS = 47
IMAGE_CYCLES, TEXT_CYCLES = 2, 3


@METHODS.register("pir")
class Pir(StageMethod):
    """v = unit(x_0 + W h(x)), s = unit(t_0 + W' h'(t)); L = L_contrastive + L_affiliation.

    x are Swin's tokens behind their mean x_0, projected to the shared space, of which only those closest to g are kept,
    the projected output of a frozen ResNet that knows scenes; g also gives the queries of the cross-attention in h. t
    are BERT's states, whose own mapped copies give the queries in h'. L_contrastive distributes its target among pairs
    of the same image or text; both temperatures are trained.

    Sizes, losses and temperatures follow the published code (github.com/jaychempan/PIR). Deviations: padding is masked
    in BERT and in h', where that code attends to it; the temperatures are trained as logarithms and limited; equal
    captions are positives of each other; see `affiliation` for that loss. The published model was selected on test.

    The lite form has a trained CNN in place of Swin, whose last map gives the tokens; ResNet and BERT have smaller
    substitutes too.
    """

    options: PirOptions

    def __init__(self, options: PirOptions, context: Context) -> None:
        super().__init__(options, context, MAX_TOKENS)
        width = options.embedding
        self.image, image_width = _image_tower(options)
        scene = timm_tower(options.scene_model, options.scene_weights)
        bert = load_bert(options.text_model, options.pretrained).bert
        self.scene, self.text = Frozen(scene), TextEncoder(bert, bert.config.num_hidden_layers)
        self.image_projection, self.text_projection = (
            nn.Linear(given, width) for given in (image_width, self.text.width)
        )
        self.scene_projection = nn.Linear(scene.num_features, width)
        self.image_attention = ProgressiveAttention(width, IMAGE_CYCLES)
        self.text_attention = ProgressiveAttention(width, TEXT_CYCLES)
        self.log_scales = nn.Parameter(torch.full((2,), -math.log(TEMPERATURE)))

    @property
    def preprocess(self) -> Preprocess:
        """See `Method`; with a CNN, that of the CNN."""
        return self.image.preprocess if isinstance(self.image, CnnStages) else super().preprocess

    def encode_images(self, batch: Features | Tensor) -> Tensor:
        """Unit embeddings [B, e] from pixels."""
        assert isinstance(batch, Tensor)
        states = self._image_states(batch)
        tokens = self.image_projection(torch.cat([states.mean(dim=1, keepdim=True), states], dim=1))
        guide = self.scene_projection(self.scene(batch))
        kept = _closest(tokens, guide, self.options.kept_tokens)
        return unit(tokens[:, 0] + self.image_attention(kept, guide=guide))

    def _image_states(self, pixels: Tensor) -> Tensor:
        """The image tower's last map as tokens [B, N, C]."""
        if isinstance(self.image, CnnStages):
            last: Tensor = self.image(pixels)[-1]
            return last.flatten(2).transpose(1, 2)
        states: Tensor = self.image.forward_features(pixels).flatten(1, 2)
        return states

    def encode_texts(self, batch: Features | Tokens) -> Tensor:
        """Unit embeddings [B, e] from word pieces."""
        assert isinstance(batch, Tokens)
        tokens = self.text_projection(self.text(batch.ids, batch.mask))
        return unit(tokens[:, 0] + self.text_attention(tokens, batch.mask))

    def losses(
        self, images: Tensor, texts: Tensor, batch: PairIds, memory: Memory | None, step: StepInfo
    ) -> dict[str, Tensor]:
        """See the class; the affiliation loss reads the scene labels of the training images."""
        scales = limited_scale(self.log_scales)
        found = {"contrastive": contrastive(images, texts, scales[0], batch.positives())}
        if self.options.affiliation:
            loss = affiliation(images, texts, batch.labels, scales[1])
            found["affiliation"] = self.options.affiliation * loss
        return found

    def trained(self) -> dict[str, Tensor]:
        """See `Method`: without the statistics of the frozen ResNet."""
        return {name: tensor for name, tensor in super().trained().items() if not name.startswith("scene.")}


def _image_tower(options: PirOptions) -> tuple[Any, int]:
    """The trained image tower and the channels of its last map."""
    if options.image_model != SWIN:
        cnn = CnnStages(options.image_model, options.image_weights, options.image_size)
        return cnn, cnn.channels[-1]
    sizes: dict[str, Any] = {"img_size": options.image_size, "embed_dim": options.width, "window_size": options.window}
    swin = timm_tower(SWIN, options.image_weights, depths=options.depths, num_heads=options.heads, **sizes)
    return swin, swin.num_features


def _closest(tokens: Tensor, guide: Tensor, count: int) -> Tensor:
    """The tokens [B, count, d] with the largest dot products with the guide [B, d], in descending order."""
    ranked = torch.einsum("bnd,bd->bn", tokens, guide).topk(count, dim=1).indices
    return tokens.gather(1, ranked.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
