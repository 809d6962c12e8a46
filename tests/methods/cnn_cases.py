"""Systems of a CNN and a GRU with a few hundred thousand parameters, and a batch for them."""

import torch

from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, StepInfo
from cmer.methods.build import build
from cmer.registry import METHOD_OPTIONS

SMALL = {"image_size": 64, "image_model": "test_resnet", "image_weights": None, "word_width": 12, "gru_width": 16}
TEXTS = ["a pond", "two long boats at a pier", "many dense trees", "a red plane on a runway near trees"]
CAPTIONS = TEXTS * 5
IDS = PairIds(torch.arange(4), torch.arange(4), torch.zeros(4))
STEP = StepInfo(0, 10)
SYSTEMS = {
    "amfmn": {"unused_parts": False},
    "amfmn_minilm": {"unused_parts": False, "text_model": "minilm"},
    "hvsa": {"train_words": True, "input_biases": True},
    "swan": {"train_cnn": True},
    "mcrn": {"unused_parts": False},
}
"""Each system, named by its method and variant, with the options in which all of it trains."""


def system(name, **changes):
    """Built as a run's method is, with statistics, biases and gains of zero that show in the outputs; in eval mode."""
    kind = name.partition("_")[0]
    options = METHOD_OPTIONS.get(kind)(**(SMALL | SYSTEMS[name] | changes))
    method = build(kind, options, Context(None, FeatureOptions(), None, CAPTIONS, 0))
    generator = torch.Generator().manual_seed(1)
    for parameter_name, tensor in [*method.named_parameters(), *method.named_buffers()]:
        shown = parameter_name.endswith(("bias", "running_mean")) or not tensor.any()  # timm's residuals start at zero
        if shown and "bias_hh_l0" not in parameter_name and tensor.is_floating_point():
            with torch.no_grad():
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
    return method.eval()


def pixels(count=4):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def encoded(method, texts=TEXTS):
    return method.encode_images(pixels(len(texts))), method.encode_texts(method.tokenize(texts))


def scores(method, images, texts):
    """As the evaluator gets them, without its blocks."""
    with torch.inference_mode():
        return method.score(
            method.scored_part(method.encode_images(images)),
            method.scored_part(method.encode_texts(method.tokenize(texts))),
        )


def losses(method, batch=IDS):
    return method.losses(*encoded(method), batch, None, STEP)


def naive_states(gru, ids):
    """The states of a sentence's words, one word after the other, in one direction and without padding."""
    own, state, states = gru.gru, torch.zeros(gru.width), []
    zero = torch.zeros(3 * gru.width)
    for word in ids:
        inputs = own.weight_ih_l0 @ gru.words.weight[word] + getattr(own, "bias_ih_l0", zero)
        hidden = own.weight_hh_l0 @ state + getattr(own, "bias_hh_l0", zero)
        (r, z, n), (for_r, for_z, for_n) = inputs.chunk(3), hidden.chunk(3)
        r, z = (r + for_r).sigmoid(), (z + for_z).sigmoid()
        n = (n + r * for_n).tanh()
        state = (1 - z) * n + z * state
        states.append(state)
    return torch.stack(states)


def naive_sentence(encoder, ids):
    """ReLU(W h + b) of a sentence."""
    return (encoder.out.weight @ naive_states(encoder.gru, ids)[-1] + encoder.out.bias).relu()


def naive_multiscale(tower, maps):
    """AMFMN's image tower for maps [C, S, S] of one image."""
    f1, f2, f3, f4 = maps

    def enlarged(x):
        return x.repeat_interleave(2, 1).repeat_interleave(2, 2)

    def pointwise(convolution, x):
        return torch.einsum("oc,chw->ohw", convolution.weight[:, :, 0, 0], x) + convolution.bias[:, None, None]

    fine, grid = torch.cat([f1, enlarged(f2)]), f3.shape[1]
    low = torch.stack(
        [
            torch.stack(
                [
                    (tower.low.weight * fine[:, 4 * i : 4 * i + 3, 4 * j : 4 * j + 3]).sum((1, 2, 3)) + tower.low.bias
                    for j in range(grid)
                ],
                dim=1,
            )
            for i in range(grid)
        ],
        dim=1,
    )
    high = pointwise(tower.high, torch.cat([f3, enlarged(f4)]))
    x = torch.cat([low, high]) + high.mean(0)
    gated = (pointwise(tower.main, x) * pointwise(tower.gate, x).sigmoid()).flatten()
    attention = (tower.attention.weight @ gated + tower.attention.bias).sigmoid()
    return (tower.pooled.weight @ f4.mean((1, 2)) + tower.pooled.bias) * attention
