"""Grad-CAM maps, against the gradient by finite differences and by hand, and the check with shuffled weights."""

import numpy as np
import pytest
import torch
from torch import nn

from cmer.backbones.build import build as build_backbone
from cmer.backbones.lite.options import LiteOptions
from cmer.backbones.tiny.options import TinyOptions
from cmer.methods.build import build, context_of
from cmer.methods.cmer.options import CmerOptions
from cmer.methods.grad_cam import BOTH, BRANCH, TOWER, grad_cam, rank_correlation, shuffle_weights
from cmer.methods.layers.settings import Projection


def ready(kind: str, **options: object):
    """A method with a side branch that takes part, its backbone, two images and two texts."""
    given = (
        LiteOptions(kind="lite", printed="lite", size=64) if kind == "lite" else TinyOptions(kind="tiny", printed="t")
    )
    backbone = build_backbone(given)
    projection = Projection(kind="linear", dim=16) if kind == "lite" else Projection()
    settings = CmerOptions(hidden=16, heads=2, text="side_branch", projection=projection).model_copy(update=options)
    method = build("cmer", settings, context_of(settings, backbone, given.features, ["a pond"], 3)).eval()
    torch.manual_seed(0)
    if method.image_branch is not None:
        nn.init.normal_(method.image_branch.norm.weight)
    pixels = torch.randn(2, 3, backbone.preprocess.size, backbone.preprocess.size)
    texts = nn.functional.normalize(torch.randn(2, method.heads.dim), dim=-1)
    return method, backbone, pixels, texts


def encoded(method, backbone, pixels):
    return method.encode_images(backbone.encode_images(pixels, method.image_blocks))


@pytest.mark.parametrize(("kind", "grid"), [("lite", 2), ("tiny", 4)])
def test_maps_are_weighted_sums_of_activations_by_finite_differences(kind: str, grid: int) -> None:
    method, backbone, pixels, texts = ready(kind)
    scores, maps = grad_cam(method, backbone, pixels, texts)
    with torch.no_grad():
        assert scores == pytest.approx((encoded(method, backbone, pixels) * texts).sum(dim=1), abs=1e-5)
    assert list(maps) == [BRANCH, BOTH]
    module = backbone.get_submodule(backbone.attachment_points().image_map)
    for part, place in ((BOTH, module), (BRANCH, method.image_branch.adapters[-1].norm_attention)):
        assert maps[part].shape == (2, maps[part].shape[1], maps[part].shape[1])
        expected = by_differences(method, backbone, pixels, texts, place)
        assert maps[part].numpy() == pytest.approx(expected, abs=0.05), part
    assert maps[BOTH].shape[1] == grid


def by_differences(method, backbone, pixels, texts, place) -> np.ndarray:
    """The maps, with the mean gradient of a channel as the change of the score when the channel rises everywhere."""
    kept: list[torch.Tensor] = []
    hook = place.register_forward_hook(lambda module, given, output: kept.append(output.detach()))
    with torch.no_grad():
        encoded(method, backbone, pixels)
    hook.remove()
    (activations,) = kept
    image = activations.ndim == 4
    tokens = activations.flatten(2).transpose(1, 2) if image else activations
    side = int(len(tokens[0]) ** 0.5)
    first = len(tokens[0]) - side**2
    step, change = 1e-2, []
    for channel in range(tokens.shape[2]):
        ends = []
        for sign in (1, -1):
            moved = tokens.clone()
            moved[:, first:, channel] += sign * step
            given = moved.transpose(1, 2).unflatten(2, (side, side)) if image else moved
            hook = place.register_forward_hook(lambda module, inputs, output, given=given: given)
            with torch.no_grad():
                ends.append((encoded(method, backbone, pixels) * texts).sum(dim=1))
            hook.remove()
        change.append((ends[0] - ends[1]) / (2 * step * side**2))
    found = torch.relu((tokens[:, first:] * torch.stack(change, dim=1)[:, None]).sum(dim=2)).view(2, side, side)
    low, high = found.amin(dim=(1, 2), keepdim=True), found.amax(dim=(1, 2), keepdim=True)
    return ((found - low) / (high - low).clamp(min=1e-12)).numpy()


def test_a_method_without_a_side_branch_has_the_map_of_its_tower_alone() -> None:
    method, backbone, pixels, texts = ready("tiny", focus_adapter=False)
    assert list(grad_cam(method, backbone, pixels, texts)[1]) == [TOWER]


def test_shuffled_weights_change_the_maps_and_keep_each_tensor_s_values() -> None:
    method, backbone, pixels, texts = ready("tiny")
    before = grad_cam(method, backbone, pixels, texts)[1]
    again = grad_cam(method, backbone, pixels, texts)[1]
    values = {name: tensor.clone() for name, tensor in backbone.named_parameters()}
    assert all(torch.equal(before[part], again[part]) for part in before)
    shuffle_weights(backbone, 1)
    for name, tensor in backbone.named_parameters():
        assert torch.equal(tensor.flatten().sort().values, values[name].flatten().sort().values), name
    assert any(not torch.equal(tensor, values[name]) for name, tensor in backbone.named_parameters())
    after = grad_cam(method, backbone, pixels, texts)[1]
    assert rank_correlation(before[BOTH][0], after[BOTH][0]) < 0.9


def test_rank_correlation() -> None:
    one = torch.tensor([[0.0, 1.0], [2.0, 9.0]])
    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, torch.ones(2, 2)) == 0
