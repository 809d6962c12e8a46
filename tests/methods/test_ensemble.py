"""Ensembles: embeddings, losses and gradients against their members taken alone."""

import pytest
import torch

from cmer.backbones.base import BlockSpec, Features, Shapes
from cmer.config.backbones import FeatureOptions
from cmer.losses.memory import PairIds
from cmer.methods.base import Context, ParameterGroup, StepInfo
from cmer.methods.build import build
from cmer.methods.layers.ensemble import Ensemble
from cmer.methods.linear_probe.model import LinearProbe
from cmer.registry import METHOD_OPTIONS

BLOCK = BlockSpec(grid=0, width=6, has_cls=False)
SHAPES = Shapes(image_dim=7, text_dim=6, aligned=False, logit_scale=20.0, blocks=[BLOCK] * 3, text_blocks=[BLOCK] * 2)
CONTEXT = Context(SHAPES, FeatureOptions(blocks=[], text_blocks=[0]), None, [], 3)
IDS = PairIds(torch.arange(4), torch.tensor([0, 1, 1, 2]), torch.zeros(4, dtype=torch.int64))
OPTIONS = {
    "linear_probe": {},
    "cmer": {"text": "side_branch", "focus_adapter": False, "queue_batches": 0, "hidden": 8, "heads": 2},
}


def method_of(name, members, **more):
    options = {"projection": {"kind": "mlp", "dim": 5, "hidden": 9}, "soft_multi_positive": True, **OPTIONS[name]}
    return build(name, METHOD_OPTIONS.get(name)(members=members, **options, **more), CONTEXT)


def ensemble(name):
    """Three members, moved off their initial weights, which start some branches at zero."""
    method = method_of(name, 3)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter)) if parameter.ndim else parameter.sub_(torch.rand(()))
    return method.eval()


def inputs():
    return Features(torch.randn(4, 7)), Features(torch.randn(4, 6), {0: torch.randn(4, 5, 6)}, torch.ones(4, 5) > 0)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_score_is_the_mean_of_the_members_cosines(name) -> None:
    method, (images, texts) = ensemble(name), inputs()
    found = method.score(method.encode_images(images), method.encode_texts(texts))
    alone = [member.encode_images(images) @ member.encode_texts(texts).T for member in method.members]
    assert torch.allclose(found, sum(alone) / 3, atol=1e-6)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    assert torch.allclose(method.encode_images(images).norm(dim=1), torch.ones(4))
    assert torch.allclose(method.image_items(method.image_outputs(images)), method.encode_images(images))
    assert torch.allclose(method.text_items(method.text_outputs(texts)), method.encode_texts(texts))


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_member_learns_from_its_own_loss(name) -> None:
    method, (images, texts) = ensemble(name), inputs()

    def losses(model):
        return model.losses(model.encode_images(images), model.encode_texts(texts), IDS, None, StepInfo(0, 1))

    found = losses(method)["batch"]
    found.backward()
    together = [[parameter.grad.clone() for parameter in member.parameters()] for member in method.members]
    method.zero_grad()
    alone = [losses(member)["batch"] for member in method.members]
    assert found.item() == pytest.approx(sum(alone).item() / 3, rel=1e-5)
    sum(alone).backward()
    for member, gradients in zip(method.members, together, strict=True):
        for parameter, gradient in zip(member.parameters(), gradients, strict=True):
            assert torch.allclose(3 * gradient, parameter.grad, atol=1e-5)
            assert parameter.grad.abs().max() > 0


def test_members_start_apart_and_the_first_as_a_method_alone() -> None:
    method, single = method_of("cmer", 3), method_of("cmer", 1)
    assert isinstance(method, Ensemble) and not isinstance(single, Ensemble)
    assert method.count() == 3 * single.count()
    assert (method.image_blocks, method.text_blocks) == ((), [0])
    first, second, _ = (member.state_dict() for member in method.members)
    assert all(torch.equal(tensor, first[name]) for name, tensor in single.state_dict().items())
    assert not torch.equal(first["heads.image.2.weight"], second["heads.image.2.weight"])


def test_members_keep_their_rates_and_prompts(monkeypatch) -> None:
    monkeypatch.setattr(LinearProbe, "parameter_groups", lambda _: [ParameterGroup("heads.image.*", 0.1, 0.5)])
    monkeypatch.setattr(LinearProbe, "prompt_share", lambda _: 0.25)
    method = method_of("linear_probe", 2)
    for name, parameter in method.named_parameters():
        group, image = method.group_of(name), ".heads.image." in name
        assert (group == ParameterGroup("members.*.heads.image.*", 0.1, 0.5)) == image == parameter.requires_grad
    assert method.prompt_share() == 0.25


@pytest.mark.parametrize("options", [{"text": "lora", "queue_batches": 0}, {"text": "side_branch", "queue_batches": 1}])
def test_members_share_neither_lora_nor_a_queue(options) -> None:
    with pytest.raises(ValueError, match="members: 2 need `text: side_branch` and `queue_batches: 0`"):
        METHOD_OPTIONS.get("cmer")(members=2, **options)
