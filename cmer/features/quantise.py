"""Block outputs as they are stored: rounded to a type, or to 8-bit integers with one scale per token.

A scale per token was chosen here: it needs no second pass over the data and takes 4 bytes. The error of an element is
at most half a step, 1/254 of the largest magnitude in its token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmer.config.backbones import FeatureDtype

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8, "int64": torch.int64}
LEVELS = 127
"""Largest magnitude of a quantised element; -128 is not used, so that signs are symmetric."""


def scales_of(name: str) -> str:
    """Name of the array with the scales of a quantised array."""
    return f"scales_{name}"


def encoded(name: str, rows: Tensor, dtype: FeatureDtype) -> dict[str, Tensor]:
    """The arrays that represent `rows` [..., width]: `name`, and for int8 its scales [...], in float32."""
    if dtype != "int8":
        return {name: rows.to(DTYPES[dtype])}
    exact = rows.float()
    scales = exact.abs().amax(dim=-1) / LEVELS
    steps = torch.where(scales > 0, scales, 1).unsqueeze(-1)  # a token of zeros stays one
    return {name: (exact / steps).round().to(torch.int8), scales_of(name): scales}


def decoded(values: Tensor, scales: Tensor) -> Tensor:
    """The rows [..., width] in float32 from 8-bit integers and their scales [...]."""
    return values * scales.unsqueeze(-1)


def rounded(rows: Tensor, dtype: FeatureDtype) -> Tensor:
    """What is read after `rows` [..., width] were stored."""
    arrays = encoded("rows", rows, dtype)
    return decoded(arrays["rows"], arrays[scales_of("rows")]) if dtype == "int8" else arrays["rows"]
