"""An IEFT of a million parameters, nearly all of them word embeddings, and a batch for it."""

import torch

from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.ieft.options import IeftOptions

SMALL = {"image_size": 32, "patch_size": 8, "width": 32, "heads": 4, "blocks": 5, "weights": None}
TEXTS = ["a pond", "two long boats at a pier", "many dense trees", "a red plane on a runway"]
IDS = PairIds(torch.arange(4), torch.arange(4), torch.zeros(4))
STEP = StepInfo(3, 10)


def options(**changes):
    return IeftOptions(**(SMALL | {"declare_unused": False} | changes))


def ieft(**changes):
    """Built as a run's method is, with weights so large that each part shows in the outputs."""
    method = build("ieft", options(**changes), Context(None, FeatureOptions(), None, [], 0))
    torch.manual_seed(1)
    for name, parameter in method.named_parameters():
        if not name.startswith("words.word_embeddings"):
            torch.nn.init.normal_(parameter, mean=float(parameter.mean() > 0.5), std=0.3)
    return method.eval()


def pixels(count=4):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def encoded(method, texts=TEXTS):
    return method.encode_images(pixels()), method.encode_texts(method.tokenize(texts))
