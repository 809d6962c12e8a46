import pytest
import torch
from torch import nn

from cmer.backbones.base import BlockSpec, Features
from cmer.methods.layers.side_branch import FocusAdapter, SideBranch, from_regions, to_regions


@pytest.mark.parametrize("grid", [4, 7, 14, 16])
@pytest.mark.parametrize("field", [1, 2, 7])
def test_regions_are_undone(grid: int, field: int) -> None:
    patches = torch.randn(3, grid**2, 5)
    regions, mask = to_regions(patches, grid, field)
    assert torch.equal(from_regions(regions, grid, field), patches)
    assert (mask is None) == (grid % field == 0)
    if mask is not None:
        assert int(mask.sum()) == 3 * grid**2


def test_a_region_is_a_square_of_neighbours() -> None:
    numbers = torch.arange(16.0).reshape(1, 16, 1)
    regions, _ = to_regions(numbers, 4, 2)
    assert regions.squeeze(-1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def perturbed(adapter: FocusAdapter) -> FocusAdapter:
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.3)
    return adapter


def test_field_one_is_a_map_of_each_token() -> None:
    adapter = perturbed(FocusAdapter(12, 3, 1))
    u = torch.randn(2, 9, 12)
    f = adapter.head(adapter.norm_attention(u)) + u  # attention over one token is the identity
    expected = adapter.output(adapter.norm_output(f)) + f
    assert torch.allclose(adapter(u, None, False), expected, atol=1e-5)


def test_attention_equals_the_formula_written_out() -> None:
    adapter = perturbed(FocusAdapter(8, 2, 2))
    p = torch.randn(5, 4, 8)
    outputs = []
    for head in range(2):
        q = p[..., head * 4 : head * 4 + 4]
        weights = torch.softmax(q @ q.transpose(1, 2) / 4**0.5 + adapter.bias[head], dim=-1)
        outputs.append(weights @ q)
    assert torch.allclose(adapter.attend(p, None), torch.cat(outputs, dim=-1), atol=1e-5)


@pytest.mark.parametrize("field", [0, 2])
def test_a_cpu_attends_in_float32_where_the_rest_computes_in_bfloat16(field) -> None:
    adapter, mask = perturbed(FocusAdapter(8, 2, field)), torch.ones(5, 1, 1, 4, dtype=torch.bool)
    mask[:, ..., 3] = False
    p = torch.randn(5, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    exact = p.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        attended = adapter.attend(p, mask)
    attended.square().sum().backward()
    expected = adapter.attend(exact, mask)
    expected.square().sum().backward()
    assert attended.dtype == torch.float32 and torch.equal(attended, expected)
    assert torch.equal(p.grad, exact.grad.bfloat16())


def test_padding_of_a_grid_is_never_attended() -> None:
    adapter = perturbed(FocusAdapter(8, 2, 2))
    u = torch.randn(1, 10, 8)  # class token and a 3 x 3 grid
    before = adapter(u, None, True)
    lone = u[:, 9:10]  # the corner patch is alone in its region
    f = adapter.head(adapter.norm_attention(lone)) + lone
    assert torch.allclose(before[:, 9:10], adapter.output(adapter.norm_output(f)) + f, atol=1e-5)


def test_regions_do_not_see_each_other_nor_the_class_token() -> None:
    adapter = perturbed(FocusAdapter(8, 2, 2))
    u = torch.randn(1, 17, 8)
    changed = u.clone()
    changed[:, 1] = torch.randn(8)  # patch 0, region {0, 1, 4, 5}
    moved = (adapter(changed, None, True) - adapter(u, None, True)).abs().sum(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [1, 2, 5, 6]


def test_text_padding_changes_nothing() -> None:
    branch = SideBranch([BlockSpec(grid=0, width=6, has_cls=False)] * 2, [0, 1], 8, 2, 0, 5)
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(2, 3, 6)
    long = torch.cat([tokens, torch.randn(2, 4, 6)], dim=1)
    mask = torch.arange(7) < 3
    short = branch(Features(torch.empty(0), {0: tokens, 1: tokens}, torch.ones(2, 3, dtype=torch.bool)))
    padded = branch(Features(torch.empty(0), {0: long, 1: long}, mask.expand(2, 7)))
    assert torch.allclose(short, padded, atol=1e-5)


def test_blocks_of_several_widths_and_grids() -> None:
    specs = [BlockSpec(grid=4, width=6, has_cls=True), BlockSpec(grid=2, width=9, has_cls=True)]
    branch = SideBranch(specs, [0, 1], 8, 2, 2, 5)
    assert set(branch.down) == {"6", "9"}
    nn.init.ones_(branch.norm.weight)
    q = branch(Features(torch.empty(0), {0: torch.randn(3, 17, 6), 1: torch.randn(3, 5, 9)}))
    assert q.shape == (3, 5)
    q.square().sum().backward()
    assert all(parameter.grad is not None for parameter in branch.parameters())


def test_the_branch_starts_at_zero() -> None:
    branch = SideBranch([BlockSpec(grid=4, width=6, has_cls=True)], [0], 8, 2, 2, 5)
    assert branch(Features(torch.empty(0), {0: torch.randn(3, 17, 6)})).abs().max() == 0


def regularised(**shares: float) -> tuple[SideBranch, Features]:
    torch.manual_seed(0)
    branch = SideBranch([BlockSpec(grid=4, width=10, has_cls=True)], [0], 8, 2, 2, 6, **shares)
    nn.init.ones_(branch.norm.weight)
    return branch, Features(torch.zeros(400, 6), {0: torch.randn(400, 17, 10)})


def test_a_dropped_path_leaves_an_image_without_its_branch_and_counts_double_for_the_others() -> None:
    branch, features = regularised(drop_path=0.5)
    whole = branch.eval()(features)
    thinned = branch.train()(features)
    dropped = (thinned == 0).all(dim=1)
    assert 150 < int(dropped.sum()) < 250
    assert torch.allclose(thinned[~dropped], 2 * whole[~dropped], atol=1e-5)  # computed in other chunks


def test_dropout_of_the_blocks_is_for_training_alone() -> None:
    branch, features = regularised(dropout=0.4)
    plain, _ = regularised()
    assert torch.equal(branch.eval()(features), plain(features))
    assert not torch.allclose(branch.train()(features), plain(features), atol=0.1)
    assert not (branch(features) == 0).all(dim=1).any()
