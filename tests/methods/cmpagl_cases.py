"""A CMPAGL of a few thousand parameters, and a batch for it."""

import math

import torch

from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.cmpagl.options import CmpaglOptions

SMALL = {"image_size": 32, "width": 8, "depths": [1, 2], "heads": [2, 4], "window": 2, "text_model": "tiny"}
TEXTS = ["a pond", "two long boats at a pier", "many dense trees", "a red plane on a runway"]
IDS = PairIds(torch.arange(4), torch.arange(4), torch.zeros(4))
STEP = StepInfo(3, 10)


def options(**changes):
    return CmpaglOptions(**(SMALL | changes))


def cmpagl(**changes):
    """Built as a run's method is, with weights so large that each part shows in the outputs."""
    method = build("cmpagl", options(**changes), Context(None, FeatureOptions(), None, [], 0))
    torch.manual_seed(1)
    for name, parameter in method.named_parameters():
        if not name.startswith(("text.embeddings", "words")):
            torch.nn.init.normal_(parameter, mean=float(parameter.mean() > 0.5), std=0.3)
    return method.eval()


def pixels(count=4):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def encoded(method, texts=TEXTS):
    return method.encode_images(pixels(len(texts))), method.encode_texts(method.tokenize(texts))


def losses(method, images, texts, batch=IDS, step=STEP):
    return method.losses(images, texts, batch, None, step)


def naive_fusion(method, image, states):
    """One pair without padding, with the layers of transformers and attention written out."""
    x = states[None]
    for layer in method.fusion.layers:
        x, cross = layer.bert.attention(x)[0], layer.cross
        q, k, v = (
            part.unflatten(-1, (cross.num_attention_heads, -1)).transpose(0, 1)
            for part in (cross.query(x[0]), cross.key(image), cross.value(image))
        )
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        x = cross.norm(x + cross.out_proj((weights @ v).transpose(0, 1).flatten(1)))
        x = layer.bert.feed_forward_chunk(x)
    return x[0]
