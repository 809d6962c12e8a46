"""Ensembles: embeddings and tensors against their members taken alone."""

import pytest
import torch

from cmer.backbones.base import BlockSpec, Features, Shapes
from cmer.config.backbones import FeatureOptions
from cmer.methods.base import Context, ParameterGroup
from cmer.methods.build import build
from cmer.methods.layers.ensemble import Ensemble, of_members
from cmer.methods.linear_probe.model import LinearProbe
from cmer.registry import METHOD_OPTIONS

BLOCK = BlockSpec(grid=0, width=6, has_cls=False)
SHAPES = Shapes(image_dim=7, text_dim=6, aligned=False, logit_scale=20.0, blocks=[BLOCK] * 3, text_blocks=[BLOCK] * 2)
CONTEXT = Context(SHAPES, FeatureOptions(blocks=[], text_blocks=[0]), None, [], 3)
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


def test_members_cannot_share_a_text_tower_with_lora() -> None:
    with pytest.raises(ValueError, match="members: 2 need `text: side_branch`"):
        METHOD_OPTIONS.get("cmer")(members=2, text="lora")


def test_an_ensemble_takes_the_tensors_of_its_members() -> None:
    method, members = method_of("cmer", 2), [method_of("cmer", 1) for _ in range(2)]
    for number, member in enumerate(members):
        with torch.no_grad():
            for parameter in member.parameters():
                parameter.fill_(number + 0.5)
    weights = of_members([member.trained() for member in members])
    method.load_state_dict(weights, strict=True)
    assert {round(p.mean().item(), 4) for p in method.members[0].parameters()} == {0.5}
    assert {round(p.mean().item(), 4) for p in method.members[1].parameters()} == {1.5}
