"""This package's compiled 3x3 convolution (Winograd), used where it is available and estimated to be faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cuda import _extension
from resnet_cuda._backend import backend, use_native_for
from resnet_cuda.ops._registration import autocast_dtype
from resnet_cuda.ops.conv2d_winograd import conv2d_winograd, winograd_weight
from resnet_cuda.reference.checks import KERNEL, PANEL, PATCH, TILE

if TYPE_CHECKING:
    from resnet_cuda.inference.convolution import FoldedConv2d

_DTYPES = (torch.float32, torch.bfloat16)
_PADDINGS = (0, 1, 2)
# What the transforms and the padding of tiles to register blocks may cost at most, in products: see winograd_pays.
_LEAST_GAIN = 1.5
_LEAST_GAIN_16_BIT = 2.5
_ROWS = 12  # tiles come in multiples of this
_PIXELS_PER_THREAD = 24


def takes(conv: FoldedConv2d, weight: Tensor, input: Tensor, dtype: torch.dtype) -> bool:
    """Whether ``run`` computes in ``dtype`` and is estimated to be the fastest: 3x3, stride 1, on a CPU."""
    # The weight's own shape: other code may have replaced the weight alone.
    if weight.shape[2:] != (3, 3) or conv.stride != (1, 1) or conv.dilation != (1, 1) or conv.groups != 1:
        return False
    if dtype not in _DTYPES or not use_native_for(input) or not winograd_usable(dtype):
        return False
    (pad_y, pad_x), (height, width) = conv.padding, input.shape[2:]
    if pad_y not in _PADDINGS or pad_x not in _PADDINGS:
        return False
    height, width = height + 2 * pad_y - 2, width + 2 * pad_x - 2
    out_channels, channels = weight.shape[:2]
    return winograd_pays(channels, out_channels, height, width, torch.get_num_threads(), dtype)


def run(conv: FoldedConv2d, input: Tensor, residual: Tensor | None, overwrite: bool) -> Tensor:
    """A :class:`~resnet_cuda.inference.strategies.Strategy`."""
    dtype = autocast_dtype(input) or input.dtype

    def pack() -> tuple[Tensor, int, Tensor | None]:
        with torch.inference_mode(False), torch.no_grad():
            bias = None if conv.bias is None else conv.bias.detach().float()
            return winograd_weight(conv.weight.detach().float()), conv.weight.shape[0], bias

    weight, out_channels, bias = conv.packed.get("winograd", None, conv, pack)
    input, residual = input.to(dtype), None if residual is None else residual.to(dtype)
    return conv2d_winograd(input, weight, out_channels, bias, residual, conv.relu, conv.padding)


def winograd_pays(
    channels: int,
    out_channels: int,
    height: int,
    width: int,
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
) -> bool:
    """Whether ``conv2d_winograd`` is faster than oneDNN's direct convolution, for an image of that size.

    A heuristic, not a measurement: the direct convolution must need 1.5 times the multiplications, with tiles and
    output channels rounded up to the kernels' block sizes. On a Zen 4 with AVX-512 this selects shapes with a speed-up
    of 1.2 or more; from 60x80 pixels and 64 channels on it is 2.1 to 3.1. In 16 bits, where oneDNN multiplies twice as
    fast and Winograd's products stay float32, the factor is 2.5, the speed-up 1.1 to 1.7. With many threads a small
    image is limited by reading the transformed weights, four times the size of the direct ones: this is estimated at
    50 GB/s and 100 GFLOP/s per thread.

    Args:
        channels, out_channels: C and O.
        height, width: of the result, in pixels.
        threads: as returned by ``torch.get_num_threads()``.
        dtype: of input and result.
    """
    least = _LEAST_GAIN if dtype == torch.float32 else _LEAST_GAIN_16_BIT
    tiles = -(-height // TILE) * -(-width // TILE)
    computed = PATCH**2 * (-(-tiles // _ROWS) * _ROWS) * (-(-out_channels // PANEL) * PANEL)
    direct = KERNEL**2 * height * width * out_channels
    return channels >= 16 and direct >= least * computed and height * width >= _PIXELS_PER_THREAD * threads


def winograd_usable(dtype: torch.dtype) -> bool:
    """Whether this machine and the backend in use have fast kernels for ``dtype``.

    False without vector instructions (at least AVX2), for float64, and for a 16-bit dtype if the processor has matrix
    instructions for it (AMX).
    """
    if backend() != "native" or _extension.cpu_capability() == "portable":
        return False
    if dtype in (torch.bfloat16, torch.float16):
        has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return has_amx is None or not has_amx()
    return dtype == torch.float32
