"""FLOPs of cuDNN's recurrent kernels, which PyTorch's counter does not know; on a CPU it sees their matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Shape = Sequence[int]


def cudnn_rnn(inputs: Shape, weights: Sequence[Shape], *_arguments: Any, out_shape: Any) -> int:
    """FLOPs of one layer from the shapes of its inputs [..., d], one row per word, and of its weights and biases."""
    return 2 * math.prod(inputs[:-1]) * sum(_of_inputs(weights) + _of_states(weights))


def cudnn_rnn_backward(inputs: Shape, weights: Sequence[Shape], *arguments: Any, out_shape: Any) -> int:
    """FLOPs of the gradients of states and weights, and of the inputs if the last of `arguments` requests them."""
    to_inputs = bool(arguments[-1][0])
    products = 2 * sum(_of_states(weights)) + (1 + to_inputs) * sum(_of_inputs(weights))
    return 2 * math.prod(inputs[:-1]) * products


def _of_inputs(weights: Sequence[Shape]) -> list[int]:
    """Sizes of the matrices that map inputs; each direction has one, then one that maps states."""
    return [math.prod(shape) for shape in weights if len(shape) == 2][::2]


def _of_states(weights: Sequence[Shape]) -> list[int]:
    return [math.prod(shape) for shape in weights if len(shape) == 2][1::2]
