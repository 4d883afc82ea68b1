"""Deformable convolution v1 and v2 in pure PyTorch: the operator's definition.

Dai et al., "Deformable Convolutional Networks" (v1), Zhu et al., "Deformable ConvNets v2" (the mask). Signature and
border rule are those of ``torchvision.ops.deform_conv2d``. Derivatives come from autograd.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cuda.reference.checks import (
    check_deform_conv2d,
    check_deform_conv2d_tensors,
    compute_dtype,
    output_memory_format,
)
from resnet_cuda.reference.precision import in_full_precision


def _sampling_positions(
    offset: Tensor,  # [N, G, K, 2, Ho, Wo], in the dtype that positions are computed in
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Rows and columns, in input pixels, that each tap of each output pixel reads: two of [N, G, K, Ho, Wo]."""
    out_height, out_width = offset.shape[-2:]

    def arange(count: int) -> Tensor:
        return torch.arange(count, dtype=offset.dtype, device=offset.device)

    tap_y = (arange(kernel[0]) * dilation[0]).repeat_interleave(kernel[1])  # [K]
    tap_x = (arange(kernel[1]) * dilation[1]).repeat(kernel[0])  # [K]
    origin_y = arange(out_height) * stride[0] - padding[0]
    origin_x = arange(out_width) * stride[1] - padding[1]
    y = offset[:, :, :, 0] + (tap_y[:, None, None] + origin_y[:, None])
    x = offset[:, :, :, 1] + (tap_x[:, None, None] + origin_x)
    return y, x


def _bilinear_sample(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Values of ``image`` [N, G, C/G, H, W] at ``y``, ``x`` [N, G, K, Ho, Wo]: [N, G, C/G, K, Ho, Wo].

    A position is read where ``-1 <= y < H``. At exactly -1 the value is 0, as the operator's rule says, while autograd
    differentiates the bilinear patch to the right of the position: the right-hand derivative, as the rule says.
    """
    height, width = image.shape[-2:]
    # A NaN position reads no pixel; the term added below makes it NaN. `where` keeps its gradient out of the rest.
    is_nan = torch.isnan(y) | torch.isnan(x)
    outside = torch.full_like(y, -2.0)
    patch_y = torch.where(is_nan, outside, y).clamp(-2.0, height)
    patch_x = torch.where(is_nan, outside, x).clamp(-2.0, width)
    readable = (patch_y >= -1) & (patch_y < height) & (patch_x >= -1) & (patch_x < width)
    strictly_inside = readable & (patch_y > -1) & (patch_x > -1)

    top, left = patch_y.detach().floor(), patch_x.detach().floor()
    fraction_y, fraction_x = patch_y - top, patch_x - left
    flat = image.flatten(-2)  # [N, G, C/G, H*W]
    sampled = 0
    for step_y, step_x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = top.long() + step_y, left.long() + step_x
        in_image = readable & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = torch.where(in_image, row * width + column, 0).flatten(-3)  # [N, G, K*Ho*Wo]
        corner = flat.gather(-1, index.unsqueeze(2).expand(-1, -1, flat.shape[2], -1))
        corner = corner.unflatten(-1, y.shape[-3:])  # [N, G, C/G, K, Ho, Wo]
        # At exactly -1 the corner's weight is 0, and 0 times a non-finite pixel would be NaN instead of 0.
        usable = in_image.unsqueeze(2) & (strictly_inside.unsqueeze(2) | torch.isfinite(corner))
        corner = torch.where(usable, corner, torch.zeros_like(corner))
        weight_y = fraction_y if step_y else 1 - fraction_y
        weight_x = fraction_x if step_x else 1 - fraction_x
        # Outside the image the weight is 0 for autograd, too.
        weight = torch.where(readable, weight_y * weight_x, torch.zeros_like(weight_y))
        sampled = sampled + weight.unsqueeze(2) * corner

    zero = torch.zeros_like(y)
    nan_slope = torch.where(is_nan, torch.full_like(y, float("nan")), zero)
    nan_term = (torch.where(is_nan, y, zero) + torch.where(is_nan, x, zero)) * nan_slope
    return sampled + nan_term.unsqueeze(2)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = (1, 1),
    padding: int | Sequence[int] = (0, 0),
    dilation: int | Sequence[int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """:func:`resnet_cuda.ops.deform_conv2d` in pure PyTorch: same arguments, results and errors.

    16-bit arguments are computed in float32 throughout and rounded once at the end. Memory: ``kh*kw`` resampled copies
    of the input, and several times that for autograd.
    """
    check_deform_conv2d_tensors(input, offset, weight, bias, mask)
    shape = check_deform_conv2d(input, weight, offset, mask, bias, stride, padding, dilation)
    batch, channels, _, _ = input.shape
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    taps = kernel_h * kernel_w
    compute = compute_dtype(input)

    positions = offset.to(compute).unflatten(1, (shape.offset_groups, taps, 2))
    y, x = _sampling_positions(positions, (kernel_h, kernel_w), shape.stride, shape.padding, shape.dilation)
    image = input.to(compute).unflatten(1, (shape.offset_groups, channels // shape.offset_groups))
    columns = _bilinear_sample(image, y, x)  # the im2col matrix, [N, G, C/G, K, Ho, Wo]
    if mask is not None:
        columns = columns * mask.to(compute).unflatten(1, (shape.offset_groups, 1, taps))

    pixels = shape.out_height * shape.out_width
    columns = columns.reshape(batch, shape.groups, group_channels * taps, pixels)
    matrix = weight.to(compute).reshape(shape.groups, out_channels // shape.groups, group_channels * taps)
    with in_full_precision(input.device.type):
        output = torch.matmul(matrix, columns)
    output = output.reshape(batch, out_channels, shape.out_height, shape.out_width)
    if bias is not None:
        output = output + bias.to(compute)[:, None, None]
    return output.to(input.dtype).contiguous(memory_format=output_memory_format(input))
