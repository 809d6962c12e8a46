"""Multiply-accumulates in closed form."""

from contextlib import nullcontext

import pytest
import torch
from profiling_cases import step_of
from torch import nn

from cmer.profiling.measure import flop_counter, macs
from cmer.profiling.recurrent import cudnn_rnn, cudnn_rnn_backward
from cmer.profiling.step import plain_attention


@pytest.mark.parametrize("setting", ["paper_like", "today"])
def test_macs_of_a_linear_probe_in_closed_form(setting) -> None:
    step = step_of("linear_probe", setting)
    tokens = step.tokens.ids.shape[1]
    assert tokens == {"paper_like": 77, "today": 32}[setting]
    forward, backward = macs(step)
    image = 16 * 64 * (3 * 8 * 8) + tower(17, 64) + 64 * 32
    text = tower(tokens, 48) + 48 * 32
    heads, logits = 2 * 32 * 32, 2 * 2 * 32
    assert forward == 2 * (image + text + heads) + logits
    assert backward == 2 * heads + 2 * logits  # the heads' weights; of the logits both factors


def test_plain_attention_turns_off_the_fused_kernel_of_frozen_attentions() -> None:
    frozen = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(3, 5, 8)
    for attention, expected in ((plain_attention, 3 * (4 * 5 * 8**2 + 2 * 5**2 * 8)), (nullcontext, 0)):
        with flop_counter() as counter, attention():
            frozen(x, x, x, need_weights=False)
        assert counter.get_total_flops() // 2 == expected


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_macs_of_a_convolution_in_groups(groups) -> None:
    convolution = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups)
    x = torch.randn(2, 8, 10, 10, requires_grad=True)
    once = 2 * (5 * 5) * 16 * (8 // groups) * 3 * 3
    with flop_counter() as counter:
        loss = convolution(x).sum()
        forward = counter.get_total_flops() // 2
        loss.backward()
    assert forward == once
    assert counter.get_total_flops() // 2 == 3 * once


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("to_inputs", [False, True])
def test_macs_of_a_gru_of_cudnn_are_those_of_its_matrix_products(bidirectional, to_inputs) -> None:
    gru = nn.GRU(5, 7, batch_first=True, bidirectional=bidirectional)
    x = torch.randn(3, 4, 5, requires_grad=to_inputs)
    with flop_counter() as counter:
        states, _ = gru(x)
        forward = counter.get_total_flops()
        states.sum().backward()
    weights = [tuple(weight.shape) for weight in gru.parameters()]
    assert cudnn_rnn((3, 4, 5), weights, None, out_shape=None) == forward
    first = 2 * 3 * (3 * 7 * 7) * (1 + bidirectional)  # the initial state needs no gradient on a CPU
    backward = cudnn_rnn_backward((3, 4, 5), weights, None, [to_inputs, False, False, True], out_shape=None)
    assert backward - first == counter.get_total_flops() - forward


def tower(tokens, width):
    """Two blocks: query, key, value, output and MLP (12 width^2 a token), and attention's two products."""
    return 2 * (12 * tokens * width**2 + 2 * tokens**2 * width)
