"""Dropout and stochastic depth against their definitions and torch's own modules."""

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from cmer.backbones.base import BlockSpec, Features
from cmer.methods.layers.dropout import Dropout, DropPath
from cmer.methods.layers.side_branch import SideBranch, pad


def test_elements_are_dropped_alone_with_their_probability_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 400)
    dropped = Dropout(0.4)(x)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    error = 5 * (0.4 * 0.6 / x.numel()) ** 0.5  # five standard errors of a share
    assert abs((dropped == 0).float().mean().item() - 0.4) < error
    for dim in (0, 1):  # rows and columns vary as independent elements do
        share = (dropped == 0).float().mean(dim=dim)
        expected = (0.4 * 0.6 / x.shape[dim]) ** 0.5
        assert abs(share.std().item() / expected - 1) < 0.15
    pairs = ((dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)).float().mean().item()
    assert abs(pairs - 0.16) < 5 * (0.16 * 0.84 / x.numel()) ** 0.5 * 2


def test_dropout_is_torchs_outside_training_and_without_a_probability() -> None:
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(0.4).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_what_is_kept_passes_its_gradient() -> None:
    x = torch.ones(50, 20, requires_grad=True)
    dropped = Dropout(0.3)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


def branch(**shares: float) -> SideBranch:
    torch.manual_seed(0)
    made = SideBranch([BlockSpec(grid=3, width=10, has_cls=True)], [0], 8, 2, 2, 6, **shares)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def test_a_dropped_path_has_the_values_and_gradients_of_stochastic_depth(monkeypatch) -> None:
    """Of a mask drawn beforehand: torchvision's module computes every item and multiplies the dropped ones by 0."""
    features = Features(torch.empty(0), {0: torch.randn(200, 10, 10)})
    made, reference = branch(drop_path=0.5), branch()
    uniform = torch.rand(200)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: uniform)
        found = made(features)
    mask = (uniform >= 0.5).float().unsqueeze(1)
    expected = reference(features) * mask / 0.5
    assert torch.allclose(found, expected, atol=1e-5)
    weight = torch.randn(200, 6)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours, theirs in zip(made.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    assert torch.equal(made.eval()(features), reference(features))


def test_paths_are_dropped_as_often_as_by_stochastic_depth() -> None:
    torch.manual_seed(0)
    features = Features(torch.empty(0), {0: torch.ones(20_000, 1)})
    for p in (0.25, 0.5):
        ours = DropPath(p)(features, lambda kept: kept.blocks[0])
        theirs = StochasticDepth(p, "row")(torch.ones(20_000, 1))
        assert set(ours.unique().tolist()) == set(theirs.unique().tolist())
        for found in (ours, theirs):
            assert abs((found == 0).float().mean().item() - p) < 5 * (p * (1 - p) / 20_000) ** 0.5


def test_only_kept_items_are_computed_and_a_batch_may_lose_all(monkeypatch) -> None:
    made, computed = branch(drop_path=0.5), []
    outputs = made._outputs
    monkeypatch.setattr(made, "_outputs", lambda kept: computed.append(len(kept.blocks[0])) or outputs(kept))
    features = Features(torch.empty(0), {0: torch.randn(200, 10, 10)})
    found = made(features)
    assert computed == [int((found != 0).any(dim=1).sum())] and 60 < computed[0] < 140
    monkeypatch.setattr(torch, "rand", lambda *size, **__: torch.zeros(*size))
    lost = made(features)
    lost.sum().backward()
    assert lost.shape == (200, 6) and not lost.any()
    assert all(not parameter.grad.any() for parameter in made.parameters())  # not None: all processes have gradients


def test_text_rows_follow_their_items_through_a_dropped_path() -> None:
    made = SideBranch([BlockSpec(grid=0, width=6, has_cls=False)], [0], 8, 2, 0, 5, drop_path=0.5)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    mask = torch.arange(7) < torch.arange(1, 8).repeat(10)[:, None]
    features = Features(torch.empty(0), {0: torch.randn(70, 7, 6)}, mask)
    found, whole = made(features), made.eval()(features)
    kept = (found != 0).any(dim=1)
    assert 10 < int(kept.sum()) < 60
    assert torch.allclose(found[kept], 2 * whole[kept], atol=1e-5)


def test_padding_puts_every_token_in_its_place() -> None:
    mask = torch.arange(5) < torch.tensor([2, 5, 1])[:, None]
    tokens = torch.randn(8, 3, requires_grad=True)
    padded = pad(tokens, mask)
    rows = iter(tokens)
    expected = torch.stack([torch.stack([next(rows) if real else torch.zeros(3) for real in row]) for row in mask])
    assert torch.equal(padded, expected)
    weight = torch.randn(3, 5, 3)
    (padded * weight).sum().backward()
    assert torch.equal(tokens.grad, weight[mask])
