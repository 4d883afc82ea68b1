"""Arguments for Winograd's convolution, and what it must give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cuda.ops.conv2d_winograd import winograd_weight

# Rounding of results: of 16-bit ones, half of their last digit.
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-10}


def he_weight(out_channels: int, channels: int) -> Tensor:
    """As He et al. initialise it: results are as large as inputs."""
    return torch.randn(out_channels, channels, 3, 3) * (2 / (9 * channels)) ** 0.5


def problem(
    batch: int,
    channels: int,
    out_channels: int,
    height: int,
    width: int,
    padding: tuple[int, int] = (1, 1),
    *,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
    residual: bool = True,
    relu: bool = True,
) -> tuple[dict, Tensor]:
    """The arguments of ``conv2d_winograd`` (inputs as after a ReLU), and the direct convolution's result in float64."""
    kernel = he_weight(out_channels, channels)
    arguments = {
        "input": torch.randn(batch, channels, height, width).relu().to(dtype),
        "weight": winograd_weight(kernel),
        "out_channels": out_channels,
        "bias": torch.randn(out_channels) if bias else None,
        "residual": None,
        "relu": relu,
        "padding": padding,
    }
    size = (batch, out_channels, height + 2 * padding[0] - 2, width + 2 * padding[1] - 2)
    if residual:
        arguments["residual"] = torch.randn(size).to(dtype)
    return arguments, direct(arguments, kernel)


def direct(arguments: dict, kernel: Tensor) -> Tensor:
    """The definition in float64: what ``arguments`` give with ``kernel`` (O, C, 3, 3)."""
    bias, residual = arguments["bias"], arguments["residual"]
    result = F.conv2d(
        arguments["input"].double(),
        kernel.double(),
        None if bias is None else bias.double(),
        padding=arguments["padding"],
    )
    if residual is not None:
        result = result + residual.double()
    return result.relu() if arguments["relu"] else result


def assert_close(got: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """A wrong transform, tile or border is wrong by about 1, twenty thousand times this."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    allowed = 5e-5 + ROUNDING[dtype] * expected.abs()
    difference = (got.double() - expected).abs()
    assert (difference <= allowed).all(), f"off by {difference.max():.2e}, {difference.isnan().sum()} NaN"
