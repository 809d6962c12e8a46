"""A PIR of a few hundred thousand parameters, and a batch for it."""

import torch

from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.methods.pir.options import PirOptions

SMALL = {
    **{"image_size": 32, "width": 8, "depths": [1, 1], "heads": [2, 2], "window": 2, "scene_model": "test_resnet"},
    **{"image_weights": None, "scene_weights": None, "text_model": "tiny", "embedding": 16, "kept_tokens": 9},
}
CNN = {
    **{"image_size": 64, "image_model": "test_resnet", "width": 96, "depths": [2, 2, 6, 2], "heads": [3, 6, 12, 24]},
    **{"window": 7, "kept_tokens": 3},
}
"""What changes where a CNN is the image tower."""
FORMS = [{}, CNN]
TEXTS = ["a pond", "two long boats at a pier", "many dense trees", "a red plane on a runway"]
IDS = PairIds(torch.arange(4), torch.arange(4), torch.tensor([5, 2, 5, -1]))
STEP = StepInfo(3, 10)


def options(**changes):
    return PirOptions(**(SMALL | changes))


def pir(**changes):
    """Built as a run's method is, with weights so large that each part shows in the outputs."""
    method = build("pir", options(**changes), Context(None, FeatureOptions(), None, [], 0))
    torch.manual_seed(1)
    for name, parameter in method.named_parameters():
        if not name.startswith(("text.embeddings", "log_scales", "scene.")):
            torch.nn.init.normal_(parameter, mean=float(parameter.mean() > 0.5), std=0.3)
    return method.eval()


def pixels(method):
    side = method.preprocess.size
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(2))


def encoded(method):
    return method.encode_images(pixels(method)), method.encode_texts(method.tokenize(TEXTS))
