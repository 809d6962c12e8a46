"""Gswin blocks against loops over tokens and windows."""

import pytest
import torch
import torch.nn.functional as F
from cmpagl_cases import cmpagl, options, pixels

from cmer.config.base import ConfigError, validate
from cmer.methods.cmpagl.gswin import (
    Branch,
    GlobalAttention,
    GlobalWindow,
    Gswin,
    WindowAttention,
    from_windows,
    shift_mask,
    to_windows,
)
from cmer.methods.cmpagl.options import CmpaglOptions


def test_windows_are_read_row_by_row_and_put_back() -> None:
    grid = torch.randn(2, 6, 6, 5)
    windows = to_windows(grid, 3)
    expected = [
        grid[b, 3 * i + y, 3 * j + x]
        for b in range(2)
        for i in range(2)
        for j in range(2)
        for y in range(3)
        for x in range(3)
    ]
    assert windows.shape == (8, 9, 5) and torch.equal(windows.reshape(-1, 5), torch.stack(expected))
    assert torch.equal(from_windows(windows, 3, 6), grid)


@pytest.mark.parametrize(("grid", "side", "shift"), [(4, 2, 1), (8, 4, 2), (14, 7, 3), (9, 3, 1), (12, 3, 2)])
def test_the_shift_mask_allows_neighbours_only(grid: int, side: int, shift: int) -> None:
    place = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"), dim=-1)
    rolled = to_windows(place.roll((-shift, -shift), dims=(0, 1))[None], side)
    mask = shift_mask(grid, side, shift)
    assert mask.shape == ((grid // side) ** 2, side**2, side**2)
    for window, allowed in zip(rolled.tolist(), mask.tolist(), strict=True):
        for (row, column), line in zip(window, allowed, strict=True):
            assert line == [abs(row - r) < side and abs(column - c) < side for r, c in window]


@pytest.mark.parametrize("shift", [0, 1])
def test_a_token_reaches_its_own_window_only(shift: int) -> None:
    """Windows of the unrolled map start at -side + shift, so the first ones are cut by the border."""
    attention = WindowAttention(4, 2, 6, 2, shift)
    x = torch.randn(1, 6, 6, 4)
    for row, column in ((0, 0), (0, 5), (1, 2), (5, 5)):
        changed = x.clone()
        changed[0, row, column] += 1
        moved = (attention(x) - attention(changed)).abs().amax(dim=-1)[0] > 1e-6
        window = ((row - shift) // 2, (column - shift) // 2)
        same = [[((r - shift) // 2, (c - shift) // 2) == window for c in range(6)] for r in range(6)]
        assert moved.tolist() == same


def naive_attention(queries, keys, values, heads, bias=None):
    """[Q, C], [K, C], [K, C] → [Q, C]; bias [heads][Q][K]."""
    width = queries.shape[1] // heads
    found = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = queries[:, part] @ keys[:, part].T / width**0.5
        if bias is not None:
            scores = scores + torch.tensor(bias[head])
        found.append(scores.softmax(dim=1) @ values[:, part])
    return torch.cat(found, dim=1)


def naive_local(attention, x, shift, side):
    """Tokens that share a window of the shifted grid attend to each other; [H, H, C]."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in range(len(x)):
        for column in range(len(x)):
            groups.setdefault(((row - shift) // side, (column - shift) // side), []).append((row, column))
    output = torch.zeros_like(x)
    for places in groups.values():
        tokens = torch.stack([x[place] for place in places])
        q, k, v = attention.in_proj(tokens).chunk(3, dim=1)
        bias = [
            [[attention.bias[head, r - s + side - 1, c - d + side - 1].item() for s, d in places] for r, c in places]
            for head in range(attention.heads)
        ]
        for place, token in zip(
            places, attention.out_proj(naive_attention(q, k, v, attention.heads, bias)), strict=True
        ):
            output[place] = token
    return output


def naive_branch(branch, x, glob, shift):
    y = x + naive_local(branch.local, branch.norm(x), shift, 2)
    cross, tokens = branch.cross, branch.cross_norm(y).flatten(0, 1)
    k, v = cross.key_value(glob).chunk(2, dim=1)
    found = cross.out_proj(naive_attention(cross.query(tokens), k, v, cross.heads))
    return y + found.view(y.shape)


def test_a_block_is_the_mean_of_its_branches_then_the_mlp() -> None:
    block = cmpagl().image.stages[0].blocks[0]
    x, glob = torch.randn(2, 8, 8, 8), torch.randn(2, 4, 8)
    with torch.no_grad():
        found = block(x, glob)
        for one, g, output in zip(x, glob, found, strict=True):
            mean = (naive_branch(block.regular, one, g, 0) + naive_branch(block.shifted, one, g, 1)) / 2
            first, _, second = block.mlp
            expected = mean + second(F.gelu(first(block.norm(mean))))
            assert torch.allclose(output, expected, atol=1e-5)


def test_the_global_window_is_the_pooled_map() -> None:
    glob = GlobalWindow(4, 8, 2)
    x = torch.randn(2, 8, 8, 4)
    with torch.no_grad():
        grid = x.permute(0, 3, 1, 2)
        for conv in (glob.reduce[0], glob.reduce[2]):
            assert conv.groups == 4
            grid = torch.stack(
                [F.conv2d(grid[:, [c]], conv.weight[[c]], conv.bias[[c]], padding=1)[:, 0] for c in range(4)], dim=1
            )
            grid = grid.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax(dim=(3, 5))
        assert torch.allclose(glob(x), glob.norm(grid.flatten(2).transpose(1, 2)), atol=1e-6)
    assert len(GlobalWindow(4, 2, 2).reduce) == 1 and GlobalWindow(4, 2, 2)(x[:, :2, :2]).shape == (2, 4, 4)


def test_both_branches_of_all_blocks_of_a_stage_share_one_global_window() -> None:
    tower, seen = cmpagl().image, []
    for module in tower.modules():
        if isinstance(module, GlobalAttention):
            module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    tower(pixels(2))
    stages = [seen[:2], seen[2:]]
    assert [len(stage) for stage in stages] == [2, 4]  # two branches, blocks 1 and 2
    for stage, width in zip(stages, (8, 16), strict=True):
        assert all(glob is stage[0] for glob in stage) and stage[0].shape == (2, 4, width)


def test_one_branch_is_shifted_by_half_a_window_where_the_map_has_several() -> None:
    stages = Gswin(options(image_size=16)).stages
    shifts = [[(block.regular.local.shift, block.shifted.local.shift) for block in stage.blocks] for stage in stages]
    assert shifts == [[(0, 1)], [(0, 0), (0, 0)]]
    assert Gswin(options(image_size=96, window=6)).stages[0].blocks[0].shifted.local.shift == 3


def test_patches_are_merged_two_by_two() -> None:
    tower = cmpagl().image
    merging, x = tower.merging[0], torch.randn(1, 4, 4, 8)
    four = torch.cat([x[0, 2, 0], x[0, 2, 1], x[0, 3, 0], x[0, 3, 1]])
    assert torch.allclose(merging(x)[0, 1, 0], merging.reduction(merging.norm(four)), atol=1e-6)
    assert tower(pixels(3)).shape == (3, 16, 16)


def tower_count(options: CmpaglOptions) -> int:
    """Per block of width c: two branches of LN, local attention with its biases, LN, cross-attention; LN and MLP."""
    total, side = 3 * 16 * options.width + options.width + 2 * options.width, options.window
    for stage, (depth, heads) in enumerate(zip(options.depths, options.heads, strict=True)):
        c = options.width * 2**stage
        attention = 4 * c * c + 4 * c
        branch = 2 * c + attention + heads * (2 * side - 1) ** 2
        if options.global_window:
            branch += 2 * c + attention
            total += max(1, (options.sides[stage] // side).bit_length() - 1) * 10 * c + 2 * c
        total += depth * (2 * branch + 2 * c + 8 * c * c + 5 * c)
        if stage:
            total += 4 * c + 2 * c * c  # LN(4 c/2 channels) and the map to c
    return total + 2 * c


@pytest.mark.parametrize("changes", [{}, {"global_window": False}, {"image_size": 64, "window": 4, "depths": [2, 1]}])
def test_parameters_of_the_tower_in_closed_form(changes) -> None:
    assert sum(p.numel() for p in Gswin(options(**changes)).parameters()) == tower_count(options(**changes))


def test_without_global_window_nothing_attends_to_one() -> None:
    tower = Gswin(options(global_window=False))
    assert not [m for m in tower.modules() if isinstance(m, GlobalAttention | GlobalWindow)]
    branch = next(m for m in tower.modules() if isinstance(m, Branch))
    x = torch.randn(1, 8, 8, 8)
    assert torch.equal(branch(x, None), x + branch.local(branch.norm(x)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 100, "window": 6, "depths": [1], "heads": [1]}, "use 24, 48 or another doubling of 24"),
        ({"width": 8192}, "width: the last of 2 stages has more than 8192 channels"),
        ({"image_size": 48}, "48 pixels do not halve to the global window"),  # sides 12 and 6, windows of 2: 6 and 3
        ({"depths": [1, 1, 1]}, r"depths \[1, 1, 1\] and heads \[2, 4\] must have one number per stage each"),
        ({"heads": [2, 3]}, "the 16 channels of stage 2 must be a multiple of 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(CmpaglOptions, options().model_dump() | changes, "options")
