"""Winograd's convolution F(4x4, 3x3) with bias, residual and ReLU in pure PyTorch: the operator's definition.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308). For a patch ``d`` of 6x6 pixels
and a kernel ``g`` of 3x3, the 4x4 results are ``A^T [(G g G^T) * (B^T d B)] A``, the products summed over channels.
The interpolation points are 0, 3/4, -3/4, 3/2, -3/2 and infinity, with half the rounding error of the usual 0, 1, -1,
2, -2 and infinity; ``csrc/conv2d_winograd/conv2d_winograd_math.h`` has the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cuda._arguments import flag
from resnet_cuda.reference.checks import (
    KERNEL,
    PANEL,
    PATCH,
    TILE,
    check_conv2d_winograd,
    check_tensor,
    check_winograd_weight,
)
from resnet_cuda.reference.precision import in_full_precision

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity


def _polynomial(roots: Sequence[float]) -> list[float]:
    """Coefficients of the product of ``(x - root)``, the constant one first."""
    coefficients = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *coefficients], [*(root * value for value in coefficients), 0.0]
        coefficients = [first - second for first, second in zip(shifted, scaled, strict=True)]
    return coefficients


def _transforms() -> tuple[list[list[float]], ...]:
    inverse, kernel, patch = [], [], []
    for point in _POINTS:
        others = [other for other in _POINTS if other != point]
        scale = prod(point - other for other in others)
        inverse.append([point**power for power in range(TILE)])
        kernel.append([point**power / scale for power in range(KERNEL)])
        patch.append([*_polynomial(others), 0.0])
    inverse.append([0.0] * (TILE - 1) + [1.0])
    kernel.append([0.0] * (KERNEL - 1) + [1.0])
    patch.append(_polynomial(_POINTS))
    return inverse, kernel, patch


# A (6, 4), G (6, 3) and B^T (6, 6), one row per point. Numbers and no tensors, which torch.compile would take for
# arguments; those of A and B are exact in float32.
_INVERSE, _KERNEL, _PATCH = _transforms()


def winograd_weight(weight: Tensor) -> Tensor:
    """The transformed weight for :func:`conv2d_winograd`: ``G g G^T``, computed in float64 and rounded once.

    Args:
        weight: (O, C, 3, 3), float64, float32, float16 or bfloat16.

    Returns:
        (36, ceil(O/32), C, 32), float32, contiguous, zero-padded beyond O channels. The same on every machine.
    """
    check_tensor("winograd_weight", "weight", weight)
    check_winograd_weight(weight)
    kernel = torch.tensor(_KERNEL, dtype=torch.float64, device=weight.device)
    out_channels, channels = weight.shape[:2]
    panels = -(-out_channels // PANEL)
    transformed = torch.einsum("iy,ocyx,jx->ijco", kernel, weight.double(), kernel)
    transformed = F.pad(transformed, (0, panels * PANEL - out_channels))
    transformed = transformed.reshape(PATCH * PATCH, channels, panels, PANEL).transpose(1, 2)
    return transformed.to(torch.float32).contiguous()


def conv2d_winograd(
    input: Tensor,
    weight: Tensor,
    out_channels: int,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    padding: int | Sequence[int] = 1,
) -> Tensor:
    """:func:`resnet_cuda.ops.conv2d_winograd.conv2d_winograd` in pure PyTorch: same arguments and results.

    The errors are the same, except that tensors may require a gradient: autograd differentiates the result.
    """
    op = "conv2d_winograd"
    relu = flag(op, "relu", relu)
    for name, value in (("input", input), ("weight", weight)):
        check_tensor(op, name, value)
    for name, optional in (("bias", bias), ("residual", residual)):
        check_tensor(op, name, optional, optional=True)
    shape = check_conv2d_winograd(input, weight, out_channels, bias, residual, padding)
    batch, channels, height, width = input.shape
    rows, columns = -(-shape.out_height // TILE), -(-shape.out_width // TILE)
    inverse = torch.tensor(_INVERSE, dtype=torch.float32, device=input.device)
    patch = torch.tensor(_PATCH, dtype=torch.float32, device=input.device)

    (top, left), overlap = shape.padding, PATCH - TILE
    bottom, right = rows * TILE + overlap - height - top, columns * TILE + overlap - width - left
    padded = F.pad(input.float(), (left, right, top, bottom))
    patches = padded.unfold(2, PATCH, TILE).unfold(3, PATCH, TILE)  # [N, C, rows, columns, 6, 6]
    matrices = weight.transpose(1, 2).reshape(PATCH * PATCH, channels, -1)[..., :out_channels]
    with in_full_precision(input.device.type):
        patches = (patch @ patches @ patch.T).permute(4, 5, 0, 2, 3, 1).reshape(PATCH * PATCH, -1, channels)
        products = torch.bmm(patches, matrices).reshape(PATCH, PATCH, batch, rows, columns, out_channels)
        tiles = inverse.T @ products.permute(2, 5, 3, 4, 0, 1) @ inverse  # [N, O, rows, columns, 4, 4]
    output = tiles.transpose(3, 4).reshape(batch, out_channels, rows * TILE, columns * TILE)
    output = output[..., : shape.out_height, : shape.out_width]
    if bias is not None:
        output = output + bias[:, None, None]
    if residual is not None:
        output = output + residual.float()
    if relu:
        output = output.relu()
    output = output.to(input.dtype)
    if torch._C._are_functorch_transforms_active():  # a transform's tensors have no other layout
        return output.contiguous()
    return output.contiguous(memory_format=torch.channels_last)
